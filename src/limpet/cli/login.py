"""login, logout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limpet.cli.table import Command, Option
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.registry.credentials import Credentials

_MAX_PASSWORD = 1 << 20  # tokens of clouds are long


def login(call: Call) -> int:
    from limpet.registry import login as logins

    domain, path = logins.server(call.arguments[0] if call.arguments else "")
    known = _given(call, domain, path)
    kept, asked = logins.verify(domain, path, known)
    stored = logins.store(domain, path, kept)
    if not stored.program and stored.first:
        print(
            f"WARNING! The login is stored unencrypted in '{stored.path}'; "
            '"credsStore" there names a program to keep it.',
            file=sys.stderr,
        )
    if not asked:
        print(f"limpet: {domain} did not ask for a login: it was stored without being verified", file=sys.stderr)
    print("Login Succeeded")
    return 0


def logout(call: Call) -> int:
    from limpet.registry import login as logins

    if call["all"]:
        if call.arguments:
            raise Invalid("--all takes no registry's name")
        for key in logins.all_logins():
            logins.forget(*logins.server(key))
            print(f"Removing login credentials for {key}")
        return 0
    domain, path = logins.server(call.arguments[0] if call.arguments else "")
    name = logins.key_of(domain, path)
    erased, left = logins.forget(domain, path)
    print(f"Removing login credentials for {name}" if erased else f"Not logged in to {name}")
    if left:
        print(f"limpet: {left} still has a login for {name}", file=sys.stderr)
    return 0


def _given(call: Call, domain: str, path: str) -> Credentials:
    """The login that the user names, or the one that is known already."""
    from limpet.registry import credentials
    from limpet.registry.credentials import Credentials

    username = call["username"]
    if call["password-stdin"]:
        if not username:
            raise Invalid("--password-stdin needs a user name", "give it with -u")
        return Credentials(username, _from_pipe(), source="standard input")
    if not username:
        found = credentials.find(domain, path)
        if found is not None:
            shown = found.username or "an identity token"
            print(f"Authenticating with existing credentials... [Username: {shown}]", file=sys.stderr)
            return found
    if not sys.stdin.isatty():
        raise Invalid("standard input is not a terminal", "pipe the password into: login -u NAME --password-stdin")
    import getpass

    if not username:
        username = input("Username: ").strip()
    if not username:
        raise Invalid("a user name is needed")
    password = getpass.getpass("Password: ")
    if not password:
        raise Invalid("a password is needed")
    return Credentials(username, password, source="the terminal")


def _from_pipe() -> str:
    data = sys.stdin.buffer.read(_MAX_PASSWORD + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Invalid("the password on standard input is not UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(data) > _MAX_PASSWORD:
        raise Invalid("the password on standard input is " + ("too long" if text else "empty"))
    return text


COMMANDS = {
    "login": Command(
        "login",
        login,
        "[OPTIONS] [REGISTRY]",
        "Log in to a registry; without a name to Docker Hub",
        [
            Option("password-stdin", help="Read the password from standard input"),
            Option("username", "u", kind="string", default="", metavar="NAME", help="User name"),
        ],
        examples=(
            "limpet login registry.example",
            "pass show registry | limpet login -u me --password-stdin registry.example",
        ),
        max_args=1,
        complete="registry",
    ),
    "logout": Command(
        "logout",
        logout,
        "[OPTIONS] [REGISTRY]",
        "Forget the login of a registry; without a name that of Docker Hub",
        [Option("all", "a", help="Forget all logins")],
        examples=("limpet logout registry.example", "limpet logout --all"),
        max_args=1,
        complete="registry",
    ),
}
