"""What a long piece of work says about itself: nothing by default; `cli.progress` draws it."""

from __future__ import annotations


class Progress:
    """Several things go on at once, each under its `key`. The methods may be called from any thread."""

    def begin(self, key: str, label: str, total: int | None = None) -> None:
        """`total`: bytes, if known."""

    def advance(self, key: str, count: int) -> None:
        """`count` more bytes are done."""

    def finish(self, key: str, status: str) -> None:
        """The last word about it: "done", "already here"."""

    def note(self, line: str) -> None:
        """A line for the reader, of no key."""


current: list[Progress] = []
"""What is being shown, the innermost last: for who has something to say that nobody gave a Progress."""
