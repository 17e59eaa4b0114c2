"""From a path of the distribution specification ("Endpoints") to what is asked for."""

from __future__ import annotations

from urllib.parse import unquote

from limpet.frozen import dataclass
from limpet.registry.server.errors import RegistryError

PULL, PUSH, DELETE = "pull", "push", "delete"
_READING = {"GET": PULL, "HEAD": PULL}

_ACTIONS: dict[str, dict[str, str]] = {
    "base": _READING,
    "catalog": _READING,
    "tags": _READING,
    "referrers": _READING,
    "manifest": {**_READING, "PUT": PUSH, "DELETE": DELETE},
    "blob": {**_READING, "DELETE": DELETE},
    "uploads": {"POST": PUSH},
    "upload": {"GET": PUSH, "HEAD": PUSH, "PATCH": PUSH, "PUT": PUSH, "DELETE": PUSH},
}


@dataclass(frozen=True, slots=True)
class Route:
    """`kind` and `action` as above; `repository` and `argument` (tag, digest, upload) are not checked yet."""

    kind: str
    action: str
    repository: str = ""
    argument: str = ""


def find(method: str, raw_path: str) -> Route | None:
    """None if it is no path of the API. Raises UNSUPPORTED for a method that the path does not have."""
    path = raw_path.partition("?")[0]
    if not path.startswith("/v2"):
        return None
    path = path[3:]
    if "%" in path:
        path = unquote(path, errors="replace")
    found = _split(path)
    if found is None:
        return None
    kind, repository, argument = found
    actions = _ACTIONS[kind]
    action = actions.get(method)
    if action is None:
        raise RegistryError(405, "UNSUPPORTED", f"{method} is not possible here", headers={"Allow": ", ".join(actions)})
    return Route(kind, action, repository, argument)


def _split(path: str) -> tuple[str, str, str] | None:
    if path in ("", "/"):
        return "base", "", ""
    if path == "/_catalog":
        return "catalog", "", ""
    name, slash, last = path[1:].rpartition("/")
    if not slash:
        return None
    if name.endswith("/manifests"):
        return "manifest", name[:-10], last
    if name.endswith("/blobs/uploads"):
        return ("upload", name[:-14], last) if last else ("uploads", name[:-14], "")
    if name.endswith("/blobs"):
        return ("uploads", name[:-6], "") if last == "uploads" else ("blob", name[:-6], last)
    if name.endswith("/referrers"):
        return "referrers", name[:-10], last
    if name.endswith("/tags") and last == "list":
        return "tags", name[:-5], ""
    return None
