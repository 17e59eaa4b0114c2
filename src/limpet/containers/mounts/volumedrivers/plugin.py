"""Docker's volume plugins: JSON by POST over a unix socket, `VolumeDriver.Create` and the like.

(docs.docker.com/engine/extend/plugin_api, plugins_volume.) NAME is found as /run/docker/plugins/NAME.sock, or by
NAME.spec or NAME.json (`Addr`) below /etc/docker/plugins and /usr/lib/docker/plugins, which must name a unix socket.
What it answers is not trusted: it has a size, a time, and a mount point is an absolute path.
"""

from __future__ import annotations

import http.client
import os
import socket
import stat
from typing import Any

from limpet import jsontext
from limpet.errors import LimpetError, NotFound

SOCKETS = "/run/docker/plugins"
PLACES = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MOST = 1 << 20
"""Bytes of an answer."""
_PATIENCE = 60.0
"""Seconds: a plugin may have to mount something far away."""


class Plugin:
    def __init__(self, name: str) -> None:
        """Raises NotFound."""
        self.name = name
        self._socket = _find(name)
        self._active = False

    def create(self, volume: str, options: dict[str, str]) -> dict[str, str]:
        self._call("Create", {"Name": volume, "Opts": options})
        return options

    def mount(self, volume: str, options: dict[str, str], user: str) -> str:
        path = self._call("Mount", {"Name": volume, "ID": user}).get("Mountpoint")
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise LimpetError(f"volume {volume}: the plugin {self.name} gave no path that it is mounted at")
        return path

    def unmount(self, volume: str, options: dict[str, str], user: str, *, last: bool) -> None:
        self._call("Unmount", {"Name": volume, "ID": user})

    def remove(self, volume: str, options: dict[str, str]) -> None:
        self._call("Remove", {"Name": volume})

    def usage(self, volume: str) -> int | None:
        return None

    def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self._active:
            self._active = True
            offered = self._post("/Plugin.Activate", {}).get("Implements")
            if not isinstance(offered, list) or "VolumeDriver" not in offered:
                raise LimpetError(f"the plugin {self.name} is no volume driver", f"it answers at {self._socket}")
        return self._post(f"/VolumeDriver.{method}", body)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = _Connection(self._socket)
        try:
            connection.request("POST", path, jsontext.dumps(body).encode(), {"Content-Type": _TYPE, "Accept": _TYPE})
            response = connection.getresponse()
            data = response.read(_MOST + 1)
        except (OSError, http.client.HTTPException) as e:
            why = getattr(e, "strerror", None) or str(e) or type(e).__name__
            raise LimpetError(f"the volume plugin {self.name} does not answer at {self._socket}: {why}") from e
        finally:
            connection.close()
        try:
            if len(data) > _MOST:
                raise ValueError
            answer = jsontext.loads(data) if data.strip() else {}
            if not isinstance(answer, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise LimpetError(f"the volume plugin {self.name} answers {path} with something that is no JSON") from None
        error = answer.get("Err")
        if error or response.status != 200:
            said = str(error or f"HTTP status {response.status}").split("\n")[0][:500]
            raise LimpetError(f"the volume plugin {self.name}: {said}", exit_code=1)
        return answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _find(name: str) -> str:
    hint = f"local is there always; a plugin has a socket {SOCKETS}/{name}.sock"
    if not name or "/" in name or name.startswith("."):
        raise NotFound(f"volume driver '{name}': no such plugin", hint)
    for path in (f"{SOCKETS}/{name}.sock", f"{SOCKETS}/{name}/{name}.sock"):
        if _is_socket(path):
            return path
    for place in PLACES:
        for path in (f"{place}/{name}.spec", f"{place}/{name}.json"):
            address = _address(path)
            if address.startswith("unix://"):
                return address.removeprefix("unix://")
            if address:
                raise LimpetError(f"volume driver '{name}': {path} names {address}", "only unix:// is spoken")
    known = sorted(each.removesuffix(".sock") for each in _names(SOCKETS) if each.endswith(".sock"))
    there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}; " if known else ""
    raise NotFound(f"volume driver '{name}': no such plugin", there + hint)


def _address(path: str) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST)
        if path.endswith(".spec"):
            return text.decode().strip()
        found = jsontext.loads(text)
        return str(found.get("Addr", "")) if isinstance(found, dict) else ""
    except (OSError, ValueError, RecursionError):
        return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
