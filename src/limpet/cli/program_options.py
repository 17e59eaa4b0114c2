"""Options of `create`, `run`, `exec`, `start` and `attach`: of a program in a container, and of who looks on."""

from __future__ import annotations

from limpet.cli.table import Option

ENVIRONMENT = (
    Option("env", "e", kind="list", metavar="KEY=VALUE", help="Set an environment variable (KEY alone: the caller's)"),
    Option("env-file", kind="list", metavar="FILE", help="Read environment variables from a file"),
)
USER = Option("user", "u", kind="string", default="", metavar="USER[:GROUP]", help="User, by name or number")
WORKDIR = Option("workdir", "w", kind="string", default="", metavar="DIR", help="Working directory in the container")
KEYS = Option("detach-keys", kind="string", default="", metavar="KEYS", help="Keys that detach from the container")
PROXY = Option("sig-proxy", default=True, help="Pass signals on to the program")
