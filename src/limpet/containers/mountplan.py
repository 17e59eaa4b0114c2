"""Mounts as users write them (`-v`, `--mount`, `--tmpfs`, an image's VOLUME) → one list of `Mount`, in order.

`plan` is pure but for looking at the host's paths of bind mounts. A missing source is an error (`--mkdir` makes it):
a directory silently made by a typing mistake is what users of Docker complain of (moby#13121).
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.containers import volumes
from limpet.containers.options import parse_size
from limpet.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options
    from limpet.store.store import Store

_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_TMPFS_FLAGS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime"
    " nostrictatime sync async dirsync".split(" ")
)
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge"))


class Mount:
    """`kind` is bind, volume or tmpfs; `options` are OCI mount options; `name` is the volume's, "" for the others.

    `anonymous` volumes go with their container. `copy`: fill an empty volume from the image (`volumefill`).
    """

    __slots__ = ("anonymous", "copy", "kind", "name", "options", "source", "subpath", "target")

    def __init__(
        self,
        kind: str,
        target: str,
        source: str = "",
        name: str = "",
        options: list[str] | None = None,
        anonymous: bool = False,
        copy: bool = True,
        subpath: str = "",
    ) -> None:
        self.kind = kind
        self.target = target
        self.source = source
        self.name = name
        self.options = options or []
        self.anonymous = anonymous
        self.copy = copy
        self.subpath = subpath

    @property
    def read_only(self) -> bool:
        return "ro" in self.options


def plan(store: Store, options: Options, image_volumes: list[str]) -> list[Mount]:
    """The mounts of a container to be made; later rules win over VOLUME. Raises Invalid and NotFound."""
    mounts: dict[str, Mount] = {}
    for text in options.volumes:
        _add(mounts, _from_volume(store, text, options.mkdir))
    for text in options.mounts:
        _add(mounts, _from_mount(store, text, options.mkdir))
    for text in options.tmpfs:
        target, _, words = text.partition(":")
        _add(mounts, Mount("tmpfs", _target(target, text), options=_tmpfs(words.split(",") if words else [], text)))
    for text in options.volumes_from:
        for mount in _from_container(store, text):
            mounts.setdefault(mount.target, mount)
    for target in image_volumes:
        path = _target(target, target)
        if path not in mounts:
            mounts[path] = _volume(store, "", path, [], anonymous=True)
    return sorted(mounts.values(), key=lambda mount: mount.target.count("/") if mount.target != "/" else 0)


def save(mounts: list[Mount]) -> str:
    """JSON for `containers/<id>/mounts.json`."""
    return jsontext.dumps([{field: getattr(mount, field) for field in Mount.__slots__} for mount in mounts])


def load(store: Store, container_id: str) -> list[Mount]:
    """What `create` planned; no file means no mounts."""
    try:
        fd = os.open(f"{store.container_path(container_id)}/mounts.json", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        entries: list[dict[str, Any]] = jsontext.loads(file.read())
    return [Mount(**entry) for entry in entries]


def _add(mounts: dict[str, Mount], mount: Mount) -> None:
    if mount.target in mounts:
        raise Invalid(f"duplicate mount point: {mount.target}")
    mounts[mount.target] = mount


def _target(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise Invalid(f"invalid mount '{text}': the path in the container must be absolute")
    clean = os.path.normpath(path)
    clean = clean[1:] if clean.startswith("//") else clean
    if clean == "/":
        raise Invalid(f"invalid mount '{text}': the path in the container can't be '/'")
    return clean


def _from_volume(store: Store, text: str, mkdir: bool) -> Mount:
    """`[SOURCE:]TARGET[:OPTIONS]` (docker/cli `cli/compose/loader/volume.go`)."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise Invalid(f"invalid volume '{text}'", "write NAME:/path, /host/path:/path or /path, with :ro at the end")
    if len(parts) == 1:
        return _volume(store, "", _target(text, text), [], anonymous=True)
    source, target = parts[0], _target(parts[1], text)
    options: list[str] = []
    copy = True
    for word in parts[2].split(",") if len(parts) == 3 else []:
        if word in ("ro", "rw") or word in _PROPAGATION:
            options.append(word)
        elif word == "nocopy":
            copy = False
        elif word not in ("z", "Z", "cached", "delegated", "consistent"):  # no effect without SELinux, or on Linux
            raise Invalid(f"invalid volume '{text}': unknown mode '{word}'")
    if source.startswith(("/", "./", "../")) or source in (".", ".."):
        return _bind(os.path.abspath(source), target, options, mkdir)
    return _volume(store, volumes.check_name(source), target, options, copy=copy)


def _from_mount(store: Store, text: str, mkdir: bool) -> Mount:
    """`type=bind,source=…,target=…,readonly` with Docker's keys (docker/cli `opts/mount.go`)."""
    kind, source, target, subpath, copy = "volume", "", "", "", True
    options: list[str] = []
    tmpfs: list[str] = []
    recursive = True
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key == "type":
            kind = value.lower()
        elif key in ("source", "src"):
            source = value
        elif key in ("target", "dst", "destination"):
            target = value
        elif key in ("readonly", "ro"):
            options.append("ro" if _truth(value, equals, text) else "rw")
        elif key == "bind-propagation" and value in _PROPAGATION:
            options.append(value)
        elif key == "bind-nonrecursive":
            recursive = not _truth(value, equals, text)
        elif key in ("bind-create-src", "create-host-path"):
            mkdir = _truth(value, equals, text)
        elif key == "volume-nocopy":
            copy = not _truth(value, equals, text)
        elif key == "volume-subpath":
            subpath = value
        elif key == "tmpfs-size":
            tmpfs.append(f"size={parse_size(value, 'tmpfs-size')}")
        elif key == "tmpfs-mode":
            tmpfs.append(f"mode={value}")
        elif key != "consistency":
            raise Invalid(f"invalid mount '{text}': unexpected '{field}'", "keys are type, source, target, readonly, …")
    if not target:
        raise Invalid(f"invalid mount '{text}': target is required")
    path = _target(target, text)
    if kind == "bind":
        if not source:
            raise Invalid(f"invalid mount '{text}': source is required for a bind mount")
        if not source.startswith(("/", ".")):
            raise Invalid(f"invalid mount '{text}': the source must be a path", f"write ./{source} for a relative one")
        return _bind(os.path.abspath(source), path, options, mkdir, recursive=recursive)
    if kind == "tmpfs":
        if source:
            raise Invalid(f"invalid mount '{text}': a tmpfs has no source")
        # Unlike --tmpfs, this form has no noexec of its own in Docker either (moby `volume/mounts/linux_parser.go`).
        return Mount("tmpfs", path, options=["nosuid", "nodev", "noexec", *tmpfs, *options])
    if kind != "volume":
        raise Invalid(f"invalid mount '{text}': unknown type '{kind}'", "types are bind, volume and tmpfs")
    name = volumes.check_name(source) if source else ""
    return _volume(store, name, path, options, anonymous=not name, copy=copy, subpath=subpath)


def _from_container(store: Store, text: str) -> list[Mount]:
    """`CONTAINER[:ro|rw]`: its volumes and bind mounts, at the same places (moby `volume/mounts/parser.go`)."""
    from limpet.containers import state

    name, colon, mode = text.partition(":")
    if not name or (colon and mode not in ("ro", "rw")):
        raise Invalid(f"invalid --volumes-from '{text}'", "write CONTAINER[:ro|rw]")
    found = [mount for mount in load(store, state.find(store, name).id) if mount.kind != "tmpfs"]
    for mount in found:
        if mode:
            mount.options = [word for word in mount.options if word not in ("ro", "rw")] + [mode]
        mount.copy = False  # it was filled, or will be, for that container
    return found


def _truth(value: str, equals: str, text: str) -> bool:
    if not equals:
        return True
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise Invalid(f"invalid mount '{text}': '{value}' is neither true nor false")


def _bind(source: str, target: str, options: list[str], mkdir: bool, *, recursive: bool = True) -> Mount:
    if not os.path.exists(source):
        if not mkdir:
            raise NotFound(f"bind source {source} does not exist", _near(source) + "--mkdir makes the directory")
        os.makedirs(source, exist_ok=True)
    return Mount("bind", target, source, options=["rbind" if recursive else "bind", *options])


def _near(source: str) -> str:
    """'did you mean /srv/data? ' for a name one slip away; only on the way to an error."""
    parent, name = os.path.split(source)
    try:
        import difflib

        near = difflib.get_close_matches(name, os.listdir(parent), 1)
    except OSError:
        return ""
    return f"did you mean {parent.rstrip('/')}/{near[0]}? " if near else ""


def _volume(
    store: Store,
    name: str,
    target: str,
    options: list[str],
    *,
    anonymous: bool = False,
    copy: bool = True,
    subpath: str = "",
) -> Mount:
    from limpet.containers import names

    name = name or names.container_id()
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
        raise Invalid(f"invalid volume-subpath '{subpath}': it must be beneath the volume")
    source = volumes.data_path(store, name) + (f"/{subpath}" if subpath else "")
    return Mount("volume", target, source, name, ["rbind", *options], anonymous, copy and not subpath, subpath)


def _tmpfs(words: list[str], text: str) -> list[str]:
    for word in words:
        key, equals, _ = word.partition("=")
        if word not in _TMPFS_FLAGS and not (equals and key in _TMPFS_VALUES):
            raise Invalid(f"invalid tmpfs option '{word}' in '{text}'")
    return ["noexec", "nosuid", "nodev", *words]  # Docker's defaults; a word of the user's comes later and wins
