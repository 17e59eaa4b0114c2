"""What a client may cost: connections, silence, requests a second."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`idle`: seconds in which the head of a request must be whole, and that an idle connection is kept; `silence`:
    seconds that a client may send or take nothing within a request; `connections` at a time for each worker,
    `per_client` of one address (this machine, where proxies are, has no such limit); `grace`:
    seconds that requests have to end when the server stops."""

    idle: float = 30
    silence: float = 60
    connections: int = 1000
    per_client: int = 256
    grace: float = 30


class Bucket:
    """Requests a second by client: `rate` on average, twice that at once. Full buckets are forgotten."""

    _MOST = 65536

    def __init__(self, rate: float, burst: float = 0) -> None:
        self._rate = rate
        self._burst = burst or max(1.0, rate * 2)
        self._levels: dict[str, tuple[float, float]] = {}  # client: (tokens, when)

    def look(self, client: str, now: float | None = None) -> float:
        """0 if the client may go on, or else the seconds until it may."""
        tokens = self._tokens(client, time.monotonic() if now is None else now)
        return 0 if tokens >= 1 else (1 - tokens) / self._rate

    def _tokens(self, client: str, now: float) -> float:
        tokens, then = self._levels.get(client, (self._burst, now))
        return min(self._burst, tokens + (now - then) * self._rate)

    def wait(self, client: str, now: float | None = None) -> float:
        """As `look`, and counts the request if it may go on."""
        now = time.monotonic() if now is None else now
        tokens = self._tokens(client, now)
        if tokens < 1:
            return (1 - tokens) / self._rate
        if len(self._levels) >= self._MOST:
            self._forget(now)
        self._levels[client] = (tokens - 1, now)
        return 0

    def give_back(self, client: str, count: int, now: float | None = None) -> None:
        """As if so many requests had not been."""
        now = time.monotonic() if now is None else now
        self._levels[client] = (min(self._burst, self._tokens(client, now) + count), now)

    def _forget(self, now: float) -> None:
        full = self._burst / self._rate
        self._levels = {key: value for key, value in self._levels.items() if now - value[1] < full}
        if len(self._levels) >= self._MOST:
            self._levels.clear()  # as many clients as addresses: nobody is told apart any more
