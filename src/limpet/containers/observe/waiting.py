"""`wait --condition`: until a container is what a word of Docker's or Podman's says (moby `container/state.go`).

The event log says when to look again; what is looked at is the state, so that a lost line costs a second and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.containers import state
from limpet.containers.monitor import healthcheck
from limpet.containers.observe import eventstream
from limpet.errors import Conflict, Invalid, NotFound
from limpet.store import eventlog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from limpet.containers.state import Container
    from limpet.errors import LimpetError
    from limpet.store.store import Store

CONDITIONS = (
    "not-running", "next-exit", "removed",
    "configured", "created", "initialized", "running", "paused", "stopped", "exited", "healthy", "unhealthy",
)  # fmt: skip
"""Docker's three, then those of Podman's that a container stays in for longer than a moment."""

_OF_HEALTH = ("healthy", "unhealthy")
_LIVING = ("running", "paused", "restarting")
_MEANS = {"start": "running", "pause": "paused", **{f"health_status: {word}": word for word in _OF_HEALTH}}
_LOOK = 1.0  # seconds between two looks if no event comes: a monitor that was killed tells nobody
_UNKNOWN = -1


def check(words: Sequence[str]) -> list[str]:
    """The conditions that `words` have, which may hold several with commas between. Raises Invalid."""
    found = [word.strip().lower() for text in words for word in text.split(",")]
    for word in found:
        if word not in CONDITIONS:
            raise Invalid(f"unknown condition '{word}'", f"it is one of {', '.join(CONDITIONS)}", exit_code=1)
    return found


def wait(store: Store, containers: Sequence[Container], conditions: Sequence[str]) -> Iterator[int | LimpetError]:
    """Until each is in one of the `conditions`: in their order, the exit code of its last end, or -1 if there is none.

    All are watched from the beginning, so that nobody's end is missed while another one is waited for. An error for one
    that can't come there any more: it ended, or was removed, while its health was waited for.
    """
    watched = {container.id: _Watched(store, container, conditions) for container in containers}
    follower = eventstream.Follower(eventlog.directory(store), from_end=True)
    try:
        for one in watched.values():
            one.look()
        for container in containers:
            one = watched[container.id]
            while one.code is None and one.problem is None:
                follower.wait(_LOOK)
                for event in follower.read():
                    if event.kind == "container" and event.id in watched:
                        watched[event.id].hear(event)
                for each in watched.values():
                    each.look()
            yield one.code if one.problem is None and one.code is not None else one.problem or _UNKNOWN
    finally:
        follower.close()


class _Watched:
    """`code` or `problem` as soon as it is known, and then for good."""

    def __init__(self, store: Store, container: Container, conditions: Sequence[str]) -> None:
        self._store = store
        self._container = container
        self._conditions = conditions
        self._began = state.status(store, container)
        self._ended = False  # since the wait began
        self._last = self._began.exit_code if self._began.state == "exited" else _UNKNOWN
        self.code: int | None = None
        self.problem: LimpetError | None = None
        if set(conditions) <= set(_OF_HEALTH) and self._began.running and self._health() is None:
            self.problem = Conflict(
                f"container {container.name} has no health check", "--health-cmd of run gives it one", exit_code=1
            )

    def hear(self, event: eventstream.Event) -> None:
        """Of what is over by the time that we look: a short run, one of --rm, a moment of health."""
        if event.action == "die":
            self._ended = True
            try:
                self._last = int(event.attributes.get("exitCode", ""))
            except ValueError:
                self._last = state.KILLED
        elif _MEANS.get(event.action) in self._conditions:
            self._done(_UNKNOWN)

    def look(self) -> None:
        if self.code is not None or self.problem is not None:
            return
        if self._store.db.row("SELECT 1 FROM container WHERE id = ?", self._container.id) is None:
            self._gone()
            return
        status = state.status(self._store, self._container)
        if status.state == "exited":
            self._last = status.exit_code
        if self._began.state in _LIVING and (
            status.state not in ("running", "paused") or status.started_at != self._began.started_at
        ):
            self._ended = True
        if any(self._holds(word, status) for word in self._conditions):
            self._done(self._last if status.state == "exited" or self._ended else _UNKNOWN)
        elif status.state == "exited" and set(self._conditions) <= {*_OF_HEALTH, "paused"}:
            name, words = self._container.name, " or ".join(self._conditions)
            self.problem = Conflict(
                f"container {name} ended with exit code {status.exit_code}, and was to be {words}",
                f"`limpet logs {name}` shows what it said",
                exit_code=1,
            )

    def _holds(self, word: str, status: state.Status) -> bool:
        if word == "next-exit":
            return self._ended
        if word == "not-running":
            return self._ended or status.state not in ("running", "paused")
        if word in ("stopped", "exited"):
            return self._ended or status.state == "exited"
        if word in ("configured", "created", "initialized"):
            return status.state == "created"
        if word in _OF_HEALTH:
            return status.state == "running" and self._health() == word
        return status.state == word

    def _health(self) -> str | None:
        found = healthcheck.read(self._store.container_path(self._container.id))
        return None if found is None else str(found.get("Status"))

    def _gone(self) -> None:
        """A container that is removed does not run, either."""
        if set(self._conditions) & {"removed", "not-running", "next-exit", "stopped", "exited"}:
            self._done(self._last)
        else:
            name, words = self._container.name, " or ".join(self._conditions)
            self.problem = NotFound(f"container {name} was removed, and was to be {words}", exit_code=1)

    def _done(self, code: int) -> None:
        if self.code is None:
            self.code = code
