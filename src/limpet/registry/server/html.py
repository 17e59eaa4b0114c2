"""HTML for the pages: text is escaped unless it is `Markup`; no script, and the style is allowed by its hash."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING

from aiohttp.web import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STYLE = """
:root { --ink: #1d2430; --soft: #5c6675; --line: #d9dee6; --paper: #fff; --shade: #f5f7fa; --mark: #0b6e63; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #333b47; --paper: #15191f; --shade: #1d232b; --mark: #5fd0c0; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
header, main { max-width: 70rem; margin: 0 auto; padding: 1rem 1.25rem; }
header { display: flex; gap: 1rem; align-items: center; flex-wrap: wrap; border-bottom: 1px solid var(--line); }
header strong { font-size: 1.15rem; } header form { margin-left: auto; display: flex; gap: .5rem; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
input, button { font: inherit; padding: .35rem .6rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--paper); color: inherit; }
.scroll { overflow-x: auto; } table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-weight: 600; font-size: .85rem; color: var(--soft); }
th, td { padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; } td.wide { overflow-wrap: anywhere; width: 100%; }
td.wide ~ td { white-space: nowrap; }
code, pre, .copy { font-family: ui-monospace, monospace; font-size: .9em; }
.copy { display: block; user-select: all; -webkit-user-select: all; background: var(--shade); padding: .6rem .8rem;
  border: 1px solid var(--line); border-radius: .4rem; overflow-x: auto; white-space: nowrap; margin: .5rem 0; }
.soft { color: var(--soft); } .problem { color: #b3261e; } dl { display: grid; grid-template-columns: max-content 1fr;
  gap: .25rem 1rem; margin: .5rem 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: str | int) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[str], between: str = "") -> Markup:
    return Markup(between.join(text(one) for one in parts))


def tag(name: str, *inside: str | int, **attributes: str) -> Markup:
    """`tag("a", "x", href="/")`; `class_` is class."""
    words = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{words}>{''.join(text(one) for one in inside)}</{name}>")


def link(where: str, *inside: str) -> Markup:
    return tag("a", *inside, href=where)


def copy(command: str) -> Markup:
    """One click selects all of it."""
    return tag("span", command, class_="copy")


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str | int]], numbers: Iterable[int] = (), wide: int = -1
) -> Markup:
    """`numbers`: columns that stand to the right; `wide`: the one that takes the room."""
    right = set(numbers)
    kinds = ["number" if n in right else "wide" if n == wide else "" for n in range(len(heads))]
    head = join(tag("th", one, class_=kind) for one, kind in zip(heads, kinds, strict=True))
    body = join(tag("tr", *(tag("td", one, class_=kind) for one, kind in zip(row, kinds, strict=True))) for row in rows)
    return tag("div", tag("table", tag("thead", tag("tr", head)), tag("tbody", body)), class_="scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    return tag("dl", *(part for key, value in pairs if value for part in (tag("dt", key), tag("dd", value))))


def page(title: str, *inside: str, query: str = "", user: str = "", login: bool = False, status: int = 200) -> Response:
    who = tag("span", user, class_="soft") if user else link("/login", "Log in") if login else ""
    search = Markup(
        f'<form action="/" method="get"><input name="q" type="search" placeholder="Search" aria-label="Search" '
        f'value="{html.escape(query)}"><button>Search</button></form>'
    )
    whole = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>"
        f"<header>{link('/', tag('strong', 'limpet registry'))}{search}{text(who)}</header>"
        f"<main>{''.join(text(one) for one in inside)}</main></body></html>\n"
    )
    return Response(status=status, body=whole.encode("utf-8", "replace"), headers=HEADERS)
