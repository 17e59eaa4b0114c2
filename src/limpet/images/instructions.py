"""The Dockerfile instructions that only change an image's config, for `import --change` and `commit --change`.

CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD SHELL STOPSIGNAL USER VOLUME WORKDIR, as moby takes them there
(`builder/dockerfile`): no variables are expanded, a shell form becomes `/bin/sh -c`, an ENTRYPOINT forgets an inherited
CMD.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_KNOWN = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR"


def apply(config: dict[str, Any], instructions: Iterable[str]) -> None:
    """Changes the `config` object of an image config in place. Raises Invalid, naming the instruction."""
    own_command = False
    for text in instructions:
        word, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if not rest:
            raise Invalid(f"--change '{text}': an instruction and its value are needed", "as in 'ENV KEY=value'")
        try:
            _apply(config, word.upper(), rest)
        except ValueError as e:
            raise Invalid(f"--change '{text}': {e}") from None
        own_command = own_command or word.upper() == "CMD"
        if word.upper() == "ENTRYPOINT" and not own_command:
            config.pop("Cmd", None)


def _apply(config: dict[str, Any], word: str, rest: str) -> None:
    if word == "CMD":
        config["Cmd"] = _command(config, rest)
    elif word == "ENTRYPOINT":
        config["Entrypoint"] = _command(config, rest)
    elif word == "SHELL":
        shell = _json_list(rest)
        if not shell:
            raise ValueError("SHELL needs a JSON list")
        config["Shell"] = shell
    elif word == "ENV":
        for key, value in _pairs(rest):
            config["Env"] = [e for e in config.get("Env") or [] if e.partition("=")[0] != key] + [f"{key}={value}"]
    elif word == "LABEL":
        config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(rest))}
    elif word == "EXPOSE":
        ports = config.setdefault("ExposedPorts", {})
        for port in rest.split():
            for one in _ports(port):
                ports[one] = {}
    elif word == "VOLUME":
        volumes = config.setdefault("Volumes", {})
        for path in _json_list(rest) or _words(rest):
            volumes[path] = {}
    elif word == "WORKDIR":
        config["WorkingDir"] = os.path.normpath(os.path.join(config.get("WorkingDir") or "/", rest))
    elif word == "USER":
        config["User"] = rest
    elif word == "STOPSIGNAL":
        config["StopSignal"] = rest
    elif word == "HEALTHCHECK":
        config["Healthcheck"] = _healthcheck(rest)
    elif word == "ONBUILD":
        config["OnBuild"] = [*(config.get("OnBuild") or []), rest]
    else:
        raise ValueError(f"{word} cannot be applied here; {_KNOWN} can")


def _command(config: dict[str, Any], text: str) -> list[str]:
    listed = _json_list(text)
    return [*(config.get("Shell") or ["/bin/sh", "-c"]), text] if listed is None else listed


_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _healthcheck(text: str) -> dict[str, Any]:
    """`[--interval=30s …] CMD COMMAND`, or NONE, as the config has it (moby `HealthcheckConfig`)."""
    found: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        if name == "retries" and value.isdecimal():
            found["Retries"] = int(value)
        elif name in _TIMES:
            found[_TIMES[name]] = _nanoseconds(value)
        else:
            raise ValueError(f"{option} cannot be understood, as in --interval=30s --retries=3")
        text = text.lstrip()
    word, _, command = text.partition(" ")
    command = command.strip()
    if word.upper() == "NONE" and not command and not found:
        return {"Test": ["NONE"]}
    if word.upper() != "CMD" or not command:
        raise ValueError("HEALTHCHECK needs CMD COMMAND, or NONE")
    listed = _json_list(command)
    return {"Test": ["CMD-SHELL", command] if listed is None else ["CMD", *listed], **found}


def _nanoseconds(text: str) -> int:
    """Go's 1m30s. Raises ValueError."""
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        letters = len(rest[digits:]) - len(rest[digits:].lstrip("hmsnu"))
        unit = _UNITS.get(rest[digits : digits + letters])
        if not digits or unit is None:
            break
        total += float(rest[:digits]) * unit
        rest = rest[digits + letters :]
    if rest or (total and total < _UNITS["ms"]) or not text:
        raise ValueError(f"'{text}' is no time of at least 1ms, as in 30s or 1m30s")
    return int(total)


def _json_list(text: str) -> list[str] | None:
    """The list of strings that the text is in JSON, or None: then it is a shell form."""
    if not text.startswith("["):
        return None
    try:
        value = jsontext.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _pairs(text: str) -> list[tuple[str, str]]:
    """`A=1 B="two words"`, or the old `A all the rest`."""
    words = _words(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise ValueError("a value is needed, as in KEY=value")
        return [(key, value.strip())]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"'{word}' is not KEY=value")
        pairs.append((key, value))
    return pairs


def _words(text: str) -> list[str]:
    """Splits at blanks outside quotes; quotes go, a backslash keeps the next character."""
    words: list[str] = []
    current: list[str] | None = None
    quote = ""
    i = 0
    while i < len(text):
        c = text[i]
        if c == "\\" and quote != "'" and i + 1 < len(text):
            i += 1
            current = [*(current or []), text[i]]
        elif quote:
            if c == quote:
                quote = ""
            else:
                current = [*(current or []), c]
        elif c in "'\"":
            quote = c
            current = current or []
        elif c.isspace():
            if current is not None:
                words.append("".join(current))
            current = None
        else:
            current = [*(current or []), c]
        i += 1
    if quote:
        raise ValueError(f"a quote ({quote}) is not closed")
    if current is not None:
        words.append("".join(current))
    return words


def _ports(text: str) -> list[str]:
    """`80`, `53/udp`, `8000-8002`: as the config lists them, with the protocol."""
    span, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    first, _, last = span.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= 65535):
        raise ValueError(f"'{text}' is not a port or a range of ports")
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"'{text}': the protocol is tcp, udp or sctp")
    return [f"{port}/{protocol}" for port in range(int(first), int(last) + 1)]
