"""Options of the form KEY=VALUE, and the files that hold such lines."""

from __future__ import annotations

import os

from limpet.errors import Invalid

MOST = 16 << 20


def pairs(texts: list[str]) -> dict[str, str]:
    """The last one wins; a KEY alone has the value ""."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise Invalid(f"invalid value '{text}'", "write KEY=VALUE")
        found[key] = value
    return found


def environment(values: list[str], paths: list[str]) -> list[str]:
    """Files first, then `-e`. `KEY` alone takes the caller's value; if there is none, `-e` takes the image's away."""
    texts: list[str] = []
    for path in paths:
        for line in _lines(path, "env file"):
            key, equals, _ = line.partition("=")
            if not key or any(c.isspace() for c in key):
                raise Invalid(f"env file {path}: variable '{key}' contains whitespaces")
            if equals or key in os.environ:
                texts.append(line if equals else f"{key}={os.environ[key]}")
    for text in values:
        key, equals, _ = text.partition("=")
        if not key:
            raise Invalid(f"invalid environment variable: {text}")
        texts.append(text if equals or key not in os.environ else f"{key}={os.environ[key]}")
    for text in texts:
        if "\0" in text:
            raise Invalid("an environment variable has a NUL byte")
    return texts


def label_files(paths: list[str]) -> list[str]:
    return [line for path in paths for line in _lines(path, "label file")]


def security(texts: list[str]) -> list[str]:
    """`--security-opt`: a `seccomp=FILE` is read here, where the file is; the container keeps the profile itself."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if key != "seccomp" or not equals or value == "unconfined":
            found.append(text)
        elif value != "builtin":
            found.append(f"seccomp={_read(value, 'seccomp profile')}")
    return found


def _lines(path: str, what: str) -> list[str]:
    """Docker's grammar (docker/cli `pkg/kvfile`): no quotes, no expansion; blanks before and `#` lines are dropped."""
    found = [line.lstrip() for line in _read(path, what).split("\n")]
    return [line.removesuffix("\r") for line in found if line.strip() and not line.startswith("#")]


def _read(path: str, what: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read(MOST)
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8"
        raise Invalid(f"{what} {path}: {reason}") from e
