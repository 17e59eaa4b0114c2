"""`--filter` of `images` and of the prunes, as Docker's: dangling, reference, label, label!, before, since, until.

Several filters of one key are alternatives, except `label`, where all have to match; different keys all have to match.
"""

from __future__ import annotations

import time

from limpet.errors import Invalid
from limpet.images import catalog
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.images.catalog import Image
    from limpet.store.store import Store

IMAGES = ("dangling", "reference", "label", "label!", "before", "since", "until")
PRUNE = ("dangling", "label", "label!", "until")


def parse(texts: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=VALUE` texts by key. Raises Invalid for an unknown key, naming the known ones."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise Invalid(f"invalid filter '{text}'", "write it as KEY=VALUE", exit_code=1)
        if key not in known:
            raise Invalid(f"invalid filter '{key}'", f"known are {', '.join(known)}", exit_code=1)
        found.setdefault(key, []).append(value.strip())
    return found


def matcher(store: Store, filters: dict[str, list[str]]) -> Callable[[Image], bool]:
    """Whether an image matches all of the filters. `reference` looks at its names: see `names_matching`."""
    checks: list[Callable[[Image], bool]] = []
    if "dangling" in filters:
        wanted = truth(filters["dangling"][-1])
        checks.append(lambda image: (not image.names) == wanted)
    if "label" in filters:
        checks.append(lambda image: all(has_label(labels(image), text) for text in filters["label"]))
    if "label!" in filters:
        checks.append(lambda image: not any(has_label(labels(image), text) for text in filters["label!"]))
    if "reference" in filters:
        checks.append(lambda image: bool(names_matching(image, filters["reference"])))
    if "before" in filters:
        oldest = min(created(catalog.find(store, text)) for text in filters["before"])
        checks.append(lambda image: created(image) < oldest)
    if "since" in filters:
        newest = max(created(catalog.find(store, text)) for text in filters["since"])
        checks.append(lambda image: created(image) > newest)
    if "until" in filters:
        limit = min(moment(text) for text in filters["until"])
        checks.append(lambda image: created(image) < limit)
    return lambda image: all(check(image) for check in checks)


def names_matching(image: Image, patterns: Sequence[str]) -> list[str]:
    """The names that match one of the patterns: `debian`, `debian:1*`, `*/host`; `*` stops at a slash."""
    return [name for name in image.names if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    import re  # 8 ms that only patterns need

    known = reference.parse(name)
    wild = {"*": "[^/]*", "?": "[^/]"}
    expression = re.compile("".join(wild.get(letter) or re.escape(letter) for letter in pattern))
    shown = (known.familiar, known.familiar_name, known.canonical, known.repository)
    return any(expression.fullmatch(text) for text in shown)


def labels(image: Image) -> dict[str, str]:
    return (image.config.get("config") or {}).get("Labels") or {}


def has_label(present: dict[str, str], text: str) -> bool:
    """`key`, or `key=value`."""
    key, equals, value = text.partition("=")
    return key in present and (not equals or present[key] == value)


def created(image: Image) -> float:
    """Unix seconds at which the image was made, as its config says.

    A reproducible image says 1970, or nothing: then it is when the image came into this store. An `until` that took the
    former for an age would remove what was built a minute ago.
    """
    return timestamp(str(image.config.get("created") or "")) or float(image.created)


def truth(text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise Invalid(f"'{text}' is neither true nor false", exit_code=1)


def moment(text: str) -> float:
    """Unix seconds of `until`: a duration before now (`24h`, `1h30m`), a date or a time, or Unix seconds."""
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    rest, total, number = text, 0.0, ""
    units = {"ms": 0.001, "us": 1e-6, "h": 3600, "m": 60, "s": 1}
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = next((unit for unit in units if rest.startswith(unit)), "")
        if not unit or not number.replace(".", "", 1).isdecimal():
            break
        total += float(number) * units[unit]
        rest = rest[len(unit) :]
    else:
        return time.time() - total
    found = timestamp(text)
    if not found:
        raise Invalid(f"'{text}' is no time", "write a duration such as 24h, or a date such as 2026-01-31", exit_code=1)
    return found


def timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 time or a date; 0 for anything else."""
    from datetime import UTC, datetime

    main, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    text = f"{main}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}" if dot else text  # Go writes nanoseconds
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
