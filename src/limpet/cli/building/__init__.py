"""How `limpet build` and `limpet up` show a build, each a renderer of the events of `build.report`.

choice       which one it is (`--progress`), and what stands around it: the log, the profile, the last lines
lines        plain: a line when a step begins and ends, its output between
tree         tty: lines for what is done, below them a region with what goes on; `screen` draws it
rawjson      one object a line, as BuildKit's
log          the output of a build that showed only a part of it, in the store
summary      after the last step: where the time went, or what failed and where
"""

from __future__ import annotations

from limpet.cli.table import Option

KINDS = ("auto", "plain", "tty", "quiet", "rawjson")


def progress_option(help: str) -> Option:
    return Option("progress", kind="string", default="", choices=KINDS, metavar="KIND", help=help)
