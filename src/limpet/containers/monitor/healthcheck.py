"""What a health check is: the user's options over the image's HEALTHCHECK, Docker's defaults and rules.

The form is that of the image's config (image-spec has none; moby `HealthcheckConfig`): Test, Interval, Timeout,
StartPeriod, StartInterval in nanoseconds, Retries. A field that is 0 or missing is the image's, or the default.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Check = dict[str, Any]

SECOND = 10**9
DEFAULTS = {
    "Interval": 30 * SECOND,
    "Timeout": 30 * SECOND,
    "StartPeriod": 0,
    "StartInterval": 5 * SECOND,
    "Retries": 3,
}
"""moby `daemon/health.go`."""

ACTIONS = ("none", "kill", "restart", "stop")
ANNOTATION = "org.limpet.health"
"""Of config.json: the merged check, with all its fields, as JSON."""

_LEAST = 10**6  # nanoseconds
_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval")


def merged(said: Check, image: dict[str, Any]) -> Check | None:
    """What counts, with defaults; None if nothing is to be checked. (moby `daemon/commit.go`, merge.)"""
    inner = image.get("config") or {}
    theirs = inner.get("Healthcheck") or {}
    test = said.get("Test") or theirs.get("Test") or []
    if not isinstance(test, list) or not test or test[0] in ("NONE", ""):
        return None
    found: Check = {"Test": [str(word) for word in test]}
    for name, default in DEFAULTS.items():
        value = said.get(name) or theirs.get(name) or default
        found[name] = value if isinstance(value, int) and value > 0 else default
    return found


def command(check: Check, image: dict[str, Any]) -> list[str]:
    """The words to be executed: CMD as they are, CMD-SHELL by the image's shell."""
    kind, *words = check["Test"]
    if kind != "CMD-SHELL":
        return words if kind == "CMD" else [kind, *words]
    shell = (image.get("config") or {}).get("Shell") or ["/bin/sh", "-c"]
    return [*shell, *words]


def annotation(said: Check, image: dict[str, Any]) -> str:
    """For config.json; "" without a check."""
    check = merged(said, image)
    if check is None:
        return ""
    return jsontext.dumps({**check, "Command": command(check, image), "OnFailure": said.get("OnFailure") or "none"})


def validate(said: Check) -> None:
    """Raises Invalid in Docker's words."""
    for name in _TIMES:
        value = said.get(name, 0)
        if value < 0 or 0 < value < _LEAST:
            raise Invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if said.get("Retries", 0) < 0:
        raise Invalid("--health-retries cannot be negative")
    if (said.get("OnFailure") or "none") not in ACTIONS:
        raise Invalid(f"invalid action '{said['OnFailure']}' for --health-on-failure", f"one of {', '.join(ACTIONS)}")


def read(directory: str) -> dict[str, Any] | None:
    """What the monitor found last, as `inspect` shows it (State.Health); None for a container without a check."""
    try:
        fd = os.open(f"{directory}/health", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while piece := os.read(fd, 1 << 16):
            data += piece
    finally:
        os.close(fd)
    try:
        found: dict[str, Any] = jsontext.loads(data)
    except ValueError:
        return None
    return found
