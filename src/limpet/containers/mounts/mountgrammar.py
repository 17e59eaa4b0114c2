"""Mounts as users write them: `-v`, `--mount` and `--tmpfs`, each text to one `Mount` (see `mountplan`).

Docker's keys and modes (docker/cli `opts/mount.go`, `cli/compose/loader/volume.go`), and Podman's where it has more
(podman `pkg/specgenutil/volumes.go`): images, `idmap`, `U`. A missing source is an error (`--mkdir` makes it): a
directory silently made by a typing mistake is what users of Docker complain of (moby#13121).
"""

from __future__ import annotations

import os

from limpet.containers.mounts import volumes
from limpet.containers.mounts.mountplan import Mount
from limpet.containers.options import parse_size
from limpet.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

OWNER = "owner"
"""`Mount.idmap` for `idmap` without a value: the directory's owner and the container's user are the same."""

_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_TMPFS_FLAGS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime"
    " nostrictatime sync async dirsync".split(" ")
)
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge"))
_FLAGS = frozenset("exec noexec suid nosuid dev nodev".split(" "))
"""What a bind or a volume takes too, as Podman's."""
_NOTHING = frozenset(("z", "Z", "cached", "delegated", "consistent", "consistency", "relabel"))
"""No effect without SELinux, or on Linux."""
_KINDS = ("bind", "image", "tmpfs", "volume")


def from_volume(store: Store, text: str, mkdir: bool, driver: str = "") -> Mount:
    """`[SOURCE:]TARGET[:OPTIONS]`; `driver`: of a volume that is new."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise Invalid(f"invalid volume '{text}'", "write NAME:/path, /host/path:/path or /path, with :ro at the end")
    if len(parts) == 1:
        return _volume(store, "", target(text, text), [], anonymous=True, driver=driver)
    source, place = parts[0], target(parts[1], text)
    options: list[str] = []
    copy = recursive = True
    idmap = ""
    for word in parts[2].split(",") if len(parts) == 3 else []:
        if word in ("ro", "rw") or word in _PROPAGATION or word in _FLAGS:
            options.append(word)
        elif word == "nocopy":
            copy = False
        elif word in ("bind", "rbind"):
            recursive = word == "rbind"
        elif word in ("U", "idmap") or word.startswith("idmap="):
            idmap = _idmap(word.partition("=")[2], text)
        elif word not in _NOTHING:
            raise Invalid(f"invalid volume '{text}': unknown mode '{word}'")
    if source.startswith(("/", "./", "../")) or source in (".", ".."):
        return _bind(os.path.abspath(source), place, options, mkdir, recursive=recursive, idmap=idmap)
    return _volume(store, volumes.check_name(source), place, options, copy=copy, idmap=idmap, driver=driver)


class _Fields:
    """What a `--mount` says, before it is known which kind it is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = "volume"
        self.source = self.target = self.subpath = self.idmap = ""
        self.options: list[str] = []
        self.tmpfs: list[str] = []
        self.below = ""  # of bind-recursive
        self.copy = True
        self.mkdir = False
        self.driver = ""
        self.driver_options: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.of: dict[str, str] = {}  # kind: the last key that only it has

    def take(self, field: str) -> None:
        key, equals, value = field.partition("=")
        key = key.strip().lower() if key.strip() != "U" else "idmap"
        if key == "type":
            self.kind = value.lower()
        elif key in ("source", "src"):
            self.source = value
        elif key in ("target", "dst", "destination"):
            self.target = value
        elif key in ("readonly", "ro"):
            self.options.append("ro" if self._truth(value, equals) else "rw")
        elif key in ("readwrite", "rw"):
            self.options.append("rw" if self._truth(value, equals) else "ro")
        elif key in ("subpath", "volume-subpath", "image-subpath"):
            self.subpath = value
            if key != "subpath":
                self.of[key.partition("-")[0]] = key
        elif key == "idmap":
            self.idmap = _idmap(value, self.text)
        elif key.startswith("bind-") or key in ("create-host-path", "create-src"):
            self._bind(key, equals, value)
        elif key.startswith("volume-"):
            self._volume(key, equals, value)
        elif key.startswith("tmpfs-") or key in _TMPFS_VALUES:
            self._tmpfs(key, value)
        elif field in _FLAGS:
            self.options.append(field)
        elif field in _TMPFS_FLAGS:
            self.tmpfs.append(field)
            self.of["tmpfs"] = field
        elif key not in _NOTHING:
            raise Invalid(
                f"invalid mount '{self.text}': unexpected '{field}'", "keys are type, source, target, readonly, …"
            )

    def _bind(self, key: str, equals: str, value: str) -> None:
        self.of["bind"] = key
        if key == "bind-propagation" and value in _PROPAGATION:
            self.options.append(value)
        elif key == "bind-nonrecursive":
            self.below = "disabled" if self._truth(value, equals) else ""
        elif key == "bind-recursive" and value in ("enabled", "disabled", "writable", "readonly"):
            self.below = value
        elif key in ("bind-create-src", "create-host-path", "bind-create-host-path", "create-src"):
            self.mkdir = self._truth(value, equals)
        else:
            raise Invalid(
                f"invalid mount '{self.text}': unexpected '{key}{equals}{value}'",
                "bind-propagation=[r]private|[r]shared|[r]slave, bind-recursive=enabled|disabled|writable|readonly",
            )

    def _volume(self, key: str, equals: str, value: str) -> None:
        self.of["volume"] = key
        name, _, rest = value.partition("=")
        if key == "volume-nocopy":
            self.copy = not self._truth(value, equals)
        elif key == "volume-driver":
            self.driver = value
        elif key == "volume-opt" and name:
            self.driver_options[name] = rest
        elif key == "volume-label" and name:
            self.labels[name] = rest
        else:
            raise Invalid(
                f"invalid mount '{self.text}': unexpected '{key}{equals}{value}'",
                "known are volume-subpath, volume-nocopy, volume-driver, volume-opt=KEY=VALUE, volume-label=KEY=VALUE",
            )

    def _tmpfs(self, key: str, value: str) -> None:
        self.of["tmpfs"] = key
        name = key.removeprefix("tmpfs-")
        if name == "size":
            self.tmpfs.append(f"size={parse_size(value, key)}")
        elif name in _TMPFS_VALUES:
            _check_tmpfs(f"{name}={value}")
            self.tmpfs.append(f"{name}={value}")
        else:
            raise Invalid(f"invalid mount '{self.text}': unexpected '{key}'", "tmpfs-size and tmpfs-mode are known")

    def _truth(self, value: str, equals: str) -> bool:
        return _truth(value, equals, self.text)


def from_mount(store: Store, text: str, mkdir: bool) -> Mount:
    """`type=bind,source=…,target=…,readonly`; a field that has a comma is quoted, as in CSV."""
    said = _Fields(text)
    for field in _csv(text):
        said.take(field)
    kind, source, options = said.kind, said.source, said.options
    if kind not in _KINDS:
        raise Invalid(f"invalid mount '{text}': unknown type '{kind}'", "types are bind, image, tmpfs and volume")
    if not said.target:
        raise Invalid(f"invalid mount '{text}': target is required")
    for other, key in said.of.items():
        if other != kind:
            raise Invalid(f"invalid mount '{text}': '{key}' is for type={other}, and this is type={kind}")
    place = target(said.target, text)
    if kind == "tmpfs":
        if source:
            raise Invalid(f"invalid mount '{text}': a tmpfs has no source")
        if said.subpath or said.idmap:
            raise Invalid(f"invalid mount '{text}': a tmpfs has no {'subpath' if said.subpath else 'idmap'}")
        # Unlike --tmpfs, this form has no noexec of its own in Docker either (moby `volume/mounts/linux_parser.go`).
        return Mount("tmpfs", place, options=["nosuid", "nodev", "noexec", *said.tmpfs, *options])
    if kind == "bind":
        if not source:
            raise Invalid(f"invalid mount '{text}': source is required for a bind mount")
        if not source.startswith(("/", ".")):
            raise Invalid(f"invalid mount '{text}': the source must be a path", f"write ./{source} for a relative one")
        if said.subpath:
            raise Invalid(f"invalid mount '{text}': a bind mount has no subpath", f"source={source}/{said.subpath}")
        if said.below in ("writable", "readonly") and "ro" not in options:
            raise Invalid(f"invalid mount '{text}': bind-recursive={said.below} goes with readonly")
        mount = _bind(
            os.path.abspath(source),
            place,
            options,
            mkdir or said.mkdir,
            recursive=said.below != "disabled",
            idmap=said.idmap,
        )
        mount.writable_below = said.below == "writable"
        return mount
    if kind == "image":
        return _image(store, said, place)
    name = volumes.check_name(source) if source else ""
    return _volume(
        store,
        name,
        place,
        options,
        anonymous=not name,
        copy=said.copy,
        subpath=said.subpath,
        idmap=said.idmap,
        driver=said.driver,
        driver_options=said.driver_options,
        labels=said.labels,
    )


def from_tmpfs(text: str) -> Mount:
    """`TARGET[:OPTIONS]`."""
    place, _, words = text.partition(":")
    options = words.split(",") if words else []
    for word in options:
        key, equals, _ = word.partition("=")
        if word not in _TMPFS_FLAGS and not (equals and key in _TMPFS_VALUES):
            raise Invalid(f"invalid tmpfs option '{word}' in '{text}'")
        _check_tmpfs(word)
    # Docker's defaults; a word of the user's comes later and wins.
    return Mount("tmpfs", target(place, text), options=["noexec", "nosuid", "nodev", *options])


def _check_tmpfs(word: str) -> None:
    """The kernel says of a wrong number "Invalid argument" and no more (tmpfs(5), lib/cmdline.c memparse)."""
    key, equals, value = word.partition("=")
    if not equals or key == "huge":
        return
    number = value.lower()
    if key in ("size", "nr_inodes", "nr_blocks"):
        number = number.removesuffix("%") if key == "size" and number.endswith("%") else number.rstrip("kmgtpe")
        hint = "write a number with k, m or g, like 64m" + (", or with %" if key == "size" else "")
    else:
        hint = "write an octal number, like 1777" if key == "mode" else "write a number"
    wrong = not (number.isascii() and number.isdecimal()) or len(value) - len(number) > 1
    if wrong or (key == "mode" and not set(number) <= set("01234567")):
        raise Invalid(f"invalid tmpfs option '{word}'", hint)


def target(path: str, text: str) -> str:
    """A path in the container, normalized. Raises Invalid."""
    if not path.startswith("/"):
        raise Invalid(f"invalid mount '{text}': the path in the container must be absolute")
    clean = os.path.normpath(path)
    clean = clean[1:] if clean.startswith("//") else clean
    if clean == "/":
        raise Invalid(f"invalid mount '{text}': the path in the container can't be '/'")
    return clean


def anonymous(store: Store, path: str) -> Mount:
    """What an image's VOLUME comes to."""
    return _volume(store, "", target(path, path), [], anonymous=True)


def ranges(text: str, what: str) -> dict[str, list[tuple[int, int, int]]]:
    """`uids=0-1000-1#…;gids=…` → 'uids' and 'gids': (id on disk, id in the container, how many). Raises Invalid."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for part in text.split(";"):
        key, _, value = part.partition("=")
        try:
            if key not in ("uids", "gids") or key in found:
                raise ValueError
            found[key] = []
            for triple in value.split("#"):
                disk, inside, count = (int(number) for number in triple.split("-"))
                if count < 1 or max(disk, inside) + count > 0xFFFFFFFF:
                    raise ValueError
                found[key].append((disk, inside, count))
        except ValueError:
            raise Invalid(
                f"invalid idmap '{text}' in '{what}'", "write uids=ON-DISK-INSIDE-COUNT[#…];gids=…, or idmap alone"
            ) from None
    if len(found) != 2:
        raise Invalid(f"invalid idmap '{text}' in '{what}': it needs uids and gids")
    return found


def _idmap(value: str, text: str) -> str:
    if value in ("", OWNER):
        return OWNER
    ranges(value, text)
    return value


def _csv(text: str) -> list[str]:
    """One line of RFC 4180."""
    fields: list[str] = []
    rest: str | None = text
    while rest is not None:
        if not rest.startswith('"'):
            field, comma, tail = rest.partition(",")
        else:
            field, at = "", 1
            while True:
                end = rest.find('"', at)
                if end < 0:
                    raise Invalid(f"invalid mount '{text}': a quotation mark is not closed")
                field += rest[at:end]
                if rest[end + 1 : end + 2] != '"':
                    break
                field, at = f'{field}"', end + 2
            if rest[end + 1 : end + 2] not in ("", ","):
                raise Invalid(f"invalid mount '{text}': there is more after a closing quotation mark")
            comma, tail = rest[end + 1 : end + 2], rest[end + 2 :]
        fields.append(field)
        rest = tail if comma else None
    return fields


def _truth(value: str, equals: str, text: str) -> bool:
    if not equals:
        return True
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise Invalid(f"invalid mount '{text}': '{value}' is neither true nor false")


def _bind(source: str, place: str, options: list[str], mkdir: bool, *, recursive: bool = True, idmap: str) -> Mount:
    if not os.path.exists(source):
        if not mkdir:
            raise NotFound(f"bind source {source} does not exist", _near(source) + "--mkdir makes the directory")
        try:
            _make_directories(source)
        except OSError as e:
            raise Invalid(f"bind source {source} can't be made: {e.strerror}") from e
    return Mount("bind", place, source, options=["rbind" if recursive else "bind", *options], idmap=idmap)


def _make_directories(path: str) -> None:
    """Each belongs to whom the one belongs that it is in: a directory in somebody's home is not root's (moby#21738)."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    owner = os.stat(parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    if os.geteuid() == 0 and not owner.st_mode & 0o1000:  # /tmp is nobody's
        try:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        except OSError:
            pass  # root of a user namespace that does not know that owner


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
    place: str,
    options: list[str],
    *,
    anonymous: bool = False,
    copy: bool = True,
    subpath: str = "",
    idmap: str = "",
    driver: str = "",
    driver_options: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Mount:
    from limpet.containers import names

    known = volumes.lookup(store, name) if name else None
    name = name or names.container_id()
    subpath = _subpath(subpath, "volume-subpath", "the volume")
    source = volumes.data_path(store, name) + (f"/{subpath}" if subpath else "")
    mount = Mount("volume", place, source, name, ["rbind", *options], anonymous, copy and not subpath, subpath)
    mount.idmap, mount.labels = idmap, labels or {}
    if known is not None:
        if (driver and driver != known.driver) or (
            driver_options and not driver_options.items() <= known.options.items()
        ):
            raise Invalid(f"volume {name} is there already, with another driver or other options", "leave them out")
        if known.is_mounted:
            mount.driver, mount.driver_options = known.driver, known.options
    elif driver not in ("", "local") or driver_options:
        mount.driver, mount.driver_options = driver or "local", driver_options or {}
    return mount


def _image(store: Store, said: _Fields, place: str) -> Mount:
    """The image has to be here: a mount does not pull, as Docker's and Podman's do not."""
    from limpet.images import catalog

    if not said.source:
        raise Invalid(f"invalid mount '{said.text}': source is required: the name of an image")
    if said.idmap:
        raise Invalid(f"invalid mount '{said.text}': an image has no idmap")
    try:
        image = catalog.find(store, said.source)
    except NotFound as e:
        hint = f"`limpet pull {said.source}`" + (f"; {e.hint}" if e.hint else "")
        raise NotFound(f"invalid mount '{said.text}': {e.message}", hint) from None
    mode = "rw" if "rw" in said.options and said.options[-1] != "ro" else "ro"
    mount = Mount("image", place, said.source, options=["rbind", mode], copy=False)
    mount.subpath = _subpath(said.subpath, "subpath", "the image")
    mount.image, mount.layers = image.id, catalog.layers(store, image.id)
    return mount


def _subpath(text: str, key: str, whole: str) -> str:
    """Links in it are looked at when it is opened (`mounttrees`): whoever writes the volume may change them later."""
    if text.startswith("/") or ".." in text.split("/"):
        raise Invalid(f"invalid {key} '{text}': it must be beneath {whole}")
    return os.path.normpath(text) if text.strip("/.") else ""
