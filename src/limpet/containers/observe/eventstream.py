"""Reading the event log: what was, what comes, Docker's filters and Docker's two forms of an event."""

from __future__ import annotations

import os
import re
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from limpet import jsontext
from limpet.errors import Invalid
from limpet.kernel import inotify
from limpet.store import eventlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from limpet.store.store import Store

FILTERS = ("container", "daemon", "event", "image", "label", "network", "pod", "scope", "type", "volume")
_FUZZY = ("exec_create", "exec_start", "health_status")  # their actions go on after a colon (moby#25798)
_LONGEST = 3600.0  # seconds of one wait
_LOOK = 0.5  # seconds between two looks, where this user may have no more watches
_PIECE = 1 << 16


class Event(NamedTuple):
    """`time`: nanoseconds since 1970."""

    time: int
    kind: str
    action: str
    id: str
    attributes: dict[str, str]


def stream(store: Store, *, since: float = 0.0, until: float = 0.0, filters: Sequence[str] = ()) -> Iterator[Event]:
    """What happened from `since` on (Unix seconds; 0: from now) to `until` (0: for ever). Raises Invalid.

    What is still to come is waited for. A moment that has passed ends it after what is there.
    """
    wanted = _filter(filters)
    begins = int(since * 10**9) if since else time.time_ns()
    ends = int(until * 10**9) if until else 0
    follower = Follower(eventlog.directory(store), from_end=not since)
    try:
        while True:
            for event in follower.read():
                if begins <= event.time and (not ends or event.time < ends) and wanted(event):
                    yield event
            if ends and time.time_ns() >= ends:
                return
            follower.wait((ends - time.time_ns()) / 10**9 if ends else _LONGEST)
    finally:
        follower.close()


def text(event: Event) -> str:
    """Docker's line, in local time."""
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    seconds, fraction = divmod(event.time, 10**9)
    local = time.localtime(seconds)
    zone = "Z" if local.tm_gmtoff == 0 else time.strftime("%z", local)
    zone = f"{zone[:3]}:{zone[3:]}" if len(zone) == 5 else zone
    moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone}"
    return f"{moment} {event.kind} {event.action} {event.id}" + (f" ({attributes})" if attributes else "")


def fields(event: Event) -> dict[str, Any]:
    """The Engine API's object (moby `api/types/events`), with the three old fields that its daemon still sends."""
    old: dict[str, Any] = {}
    if event.kind in ("container", "image"):
        old = {"status": event.action, "id": event.id}
        if event.kind == "container" and event.attributes.get("image"):
            old["from"] = event.attributes["image"]
    return {
        **old,
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }


def parse(line: bytes) -> Event | None:
    """None for what is no event: a line that a full disk cut, or another version's."""
    try:
        moment, kind, action, id, attributes = jsontext.loads(line)
        if not isinstance(attributes, dict):
            return None
        return Event(int(moment), str(kind), str(action), str(id), {str(k): str(v) for k, v in attributes.items()})
    except (ValueError, TypeError):
        return None


class Follower:
    """The log before last, the last, and what is appended, over any number of rotations."""

    def __init__(self, directory: str, *, from_end: bool) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self._path = f"{directory}/log"
        self._rest = b""
        try:
            self._watch = inotify.watch(directory, inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO)
        except OSError:
            self._watch = -1
        self._fd = _open(self._path)
        older = -1 if from_end else _open(f"{self._path}.1")
        self._older = [older] if older >= 0 else []
        if self._older and self._fd >= 0 and os.fstat(older).st_ino == os.fstat(self._fd).st_ino:
            os.close(self._older.pop())  # turned over between the two
        if from_end and self._fd >= 0:
            os.lseek(self._fd, 0, os.SEEK_END)

    def read(self) -> Iterator[Event]:
        """All whole lines that were not read yet."""
        while self._older:
            fd = self._older.pop(0)
            yield from self._lines(fd)
            os.close(fd)
            self._rest = b""
        while True:
            if self._fd < 0:
                self._fd = _open(self._path)
                if self._fd < 0:
                    return
            yield from self._lines(self._fd)
            if not self._is_old():
                return
            yield from self._lines(self._fd)  # its last writer may have come between the two looks
            os.close(self._fd)
            self._fd, self._rest = -1, b""

    def wait(self, seconds: float) -> None:
        """Until something may have come, or for that long."""
        seconds = max(min(seconds, _LONGEST), 0.0)
        if self._watch < 0:
            time.sleep(min(seconds, _LOOK))
            return
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        if poll.poll(seconds * 1000 + 1):
            inotify.drain(self._watch)

    def close(self) -> None:
        for fd in (self._fd, self._watch, *self._older):
            if fd >= 0:
                os.close(fd)

    def _lines(self, fd: int) -> Iterator[Event]:
        """`_rest`: the beginning of a line that is being written."""
        while piece := os.read(fd, _PIECE):
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > eventlog.LONGEST:
                self._rest = b""
            for line in lines:
                event = parse(line)
                if event is not None:
                    yield event

    def _is_old(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False  # turned over, and nobody has written since


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _filter(texts: Sequence[str]) -> Callable[[Event], bool]:
    """Values of one key are alternatives, keys are joined; labels must all be there (docker's documentation)."""
    by_key: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in FILTERS:
            raise Invalid(f"invalid filter '{text}'", f"KEY=VALUE with one of {', '.join(FILTERS)}", exit_code=1)
        by_key.setdefault(key, []).append(value)

    def matches(event: Event) -> bool:
        return all(
            (all if key == "label" else any)(_match(event, key, value) for value in values)
            for key, values in by_key.items()
        )

    return matches


def _match(event: Event, key: str, value: str) -> bool:
    """As moby `daemon/events/filter.go`."""
    if key == "event":
        return event.action == value or (value in _FUZZY and event.action.startswith(value))
    if key == "type":
        return event.kind == value
    if key == "scope":
        return value == "local"
    if key == "label":
        name, equals, wanted = value.partition("=")
        return name in event.attributes and (not equals or event.attributes[name] == wanted)
    if key == "image":
        known = (event.id, event.attributes.get("name", "")) if event.kind == "image" else ()
        known = (*known, event.attributes.get("image", "")) if event.kind == "container" else known
        return any(name and (value in (name, _untagged(name)) or name.startswith(value)) for name in known)
    if event.kind != key:
        return key == "container" and event.kind == "volume" and event.attributes.get("container", "") == value
    name = event.attributes.get("name", "")
    return event.id.startswith(value) or name == value.removeprefix("/") or _found(value, name)


def _untagged(name: str) -> str:
    last = name.rpartition("/")[2]
    return name[: len(name) - len(last) + last.find(":")] if ":" in last else name


def _found(pattern: str, text: str) -> bool:
    """Docker takes a regular expression that matches anywhere (moby `api/types/filters`, FuzzyMatch)."""
    try:
        return bool(text) and re.match(f"(?:{pattern})", text) is not None
    except re.error:
        return False
