"""`limpet capture`: an image made of the host's own files, so that there is a base where no registry is.

Without paths it holds a shell, the common commands and Python with its standard library (no tests, no byte code, no
graphical parts); with paths, those, what they need, and a shell. `selection` finds what is needed; a Python among it,
asked for or a script's interpreter, brings its standard library too, but no packages: those are paths of their own.

Reproducible: owners are root, times are SOURCE_DATE_EPOCH or 0, the order is by name, nothing of the host's identity
gets in. So the same files give the same layer, config and id, on any machine.
"""

from __future__ import annotations

import os
import re
import sys
import time

from limpet import jsontext
from limpet.errors import Invalid, NotFound
from limpet.images import importer
from limpet.images.selection import Selection
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import TarWriter
from limpet.oci import platform, reference
from limpet.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.images.catalog import Image
    from limpet.images.selection import Entry
    from limpet.store.store import Store

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

COMMANDS = (
    "sh bash awk base64 basename bunzip2 bzip2 cat chgrp chmod chown cksum clear cmp comm cp cut date dd df diff"
    " dirname du echo egrep env expand expr false fgrep find fold getent getopt grep gunzip gzip head hostname id"
    " install join kill ln locale ls md5sum mkdir mkfifo mknod mktemp more mv nice nl nohup nproc od paste pgrep"
    " pidof printenv printf ps pwd readlink realpath rm rmdir sed seq setsid sha1sum sha256sum shuf sleep sort"
    " split stat stdbuf stty sync tac tail tar tee test timeout touch tr true tty umount uname uniq unlink unxz wc"
    " which who whoami xargs xz yes zcat"
).split()
"""Taken where the host has them; what a script or a healthcheck commonly calls."""

_LIBRARY_LEFT_OUT = frozenset(
    "__pycache__ test tests idlelib tkinter turtledemo turtle.py site-packages dist-packages".split()
)
_PYTHON = re.compile(r"/.*/bin/python3(\.\d+)?")
_WHOLE = ("os.py", "ssl.py", "json/__init__.py")  # Debian's libpython3-minimal has the first only
_TERMINALS = "a/ansi d/dumb l/linux s/screen s/screen-256color t/tmux t/tmux-256color v/vt100 x/xterm x/xterm-256color"


def capture(store: Store, name: str, paths: Sequence[str] = (), progress: Progress | None = None) -> Image:
    """Makes the image and gives it the name. Raises NotFound for a path or library that isn't there."""
    wanted = reference.parse(name)
    if wanted.digest:
        raise Invalid(f"'{name}' has a digest", "a name to give has a tag at most")
    progress = progress or Progress()
    progress.begin("select", "Looking for what is needed", None)
    entries = select(paths, progress)
    progress.finish("select", f"{len(entries)} files")
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(epoch) if epoch.isdecimal() else 0
    home = driver(store)
    with store.lease(), home.ingest() as ingest:
        size = sum(os.path.getsize(entry.source) for _, entry in entries if entry.source)
        progress.begin("layer", "Capturing", size)
        _write(entries, TarWriter(ingest.write, mtime=seconds), progress)
        layer = ingest.finish(durable=True)
        home.seal([layer.diff_id])
        progress.finish("layer", "done")
        return importer.add_image(store, _config(layer.diff_id, seconds, paths), [layer.diff_id], [wanted.canonical])


def select(paths: Sequence[str] = (), progress: Progress | None = None) -> list[tuple[str, Entry]]:
    """What the image will hold, parents before children."""
    chosen = Selection()
    for path in paths:
        if not chosen.program(path):
            chosen.add(path)
    if not chosen.program("sh"):
        raise NotFound("the host has no shell in /bin/sh")
    if not paths:
        for command in COMMANDS:
            chosen.program(command)
        _python(chosen)
        _data(chosen)
    else:
        for real in [
            path for path, entry in chosen.entries.items() if entry.kind == "file" and _PYTHON.fullmatch(path)
        ]:
            library = _library_of(real, "os.py")
            if library:
                _standard_library(chosen, library, real)
            elif progress is not None:
                progress.note(f"{real}: its standard library is not beside it and is left out")
    if chosen.missing:
        name, user = next(iter(chosen.missing.items()))
        raise NotFound(f"{user} needs the library {name}, which the host does not have")
    for name in ("bin", "sbin", "lib", "lib64"):  # a merged /usr stays merged, whatever is in it
        if os.path.islink(f"/{name}"):
            target = os.readlink(f"/{name}")
            chosen.link(f"/{name}", target)
            if (real := os.path.normpath(f"/{target}")) not in chosen.entries:
                chosen.directory(real, 0o755)
    for name in (
        "dev",
        "etc",
        "home",
        "mnt",
        "opt",
        "proc",
        "run",
        "srv",
        "sys",
        "usr/local/bin",
        "var/lib",
        "var/log",
    ):
        if f"/{name}" not in chosen.entries:
            chosen.directory(f"/{name}", 0o755)
    chosen.directory("/root", 0o755 if "/root" in chosen.entries else 0o700)  # holds Python where pyenv installed it
    chosen.directory("/tmp", 0o1777)
    chosen.directory("/var/tmp", 0o1777)
    chosen.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
    chosen.file("/etc/group", b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    chosen.file("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    return chosen.finish()


def _data(chosen: Selection) -> None:
    """Files that programs look for by name: certificates, terminal descriptions, the C.UTF-8 locale, who we are."""
    for path in (
        "/etc/os-release",
        "/usr/lib/os-release",
        "/etc/ssl/openssl.cnf",
        "/usr/lib/ssl",
        "/usr/lib/locale/C.utf8",
    ):
        if os.path.exists(path):
            chosen.add(path, leave=lambda path: path.endswith(("/private", "/misc")))
    if os.path.isdir("/etc/ssl/certs"):
        chosen.add("/etc/ssl/certs", leave=lambda path: path.endswith("/java"))
    for directory in ("/lib/terminfo", "/usr/share/terminfo"):
        for terminal in _TERMINALS.split():
            if os.path.isfile(f"{directory}/{terminal}"):
                chosen.add(f"{directory}/{terminal}")


def _python(chosen: Selection) -> None:
    """The distribution's Python, or, where it has none (or only a part), the one that is running."""
    for link in ("/usr/bin/python3", f"{sys.base_prefix}/bin/python3", os.path.realpath(sys.executable)):
        library = _library_of(link)
        if library:
            break
    else:
        raise NotFound("no Python with its standard library was found on the host")
    real = chosen.add(link)
    _standard_library(chosen, library, real)
    if not link.startswith("/usr/bin/"):
        chosen.link("/usr/local/bin/python3", real)


def _standard_library(chosen: Selection, library: str, real: str) -> None:
    """`real` is the interpreter's path without links."""

    def leave(path: str) -> bool:
        name = os.path.basename(path)
        return name in _LIBRARY_LEFT_OUT or name.startswith(("config-3", "_tkinter.")) or name.endswith((".a", ".exe"))

    chosen.add(library, leave=leave, plugin_of=real)
    wide = library.replace("/lib/", "/lib64/")
    if wide != library and os.path.isdir(wide) and os.path.realpath(wide) != os.path.realpath(library):
        chosen.add(wide, leave=leave, plugin_of=real)


def _library_of(python: str, *parts: str) -> str:
    """The standard library of an interpreter: PREFIX/lib/python3.N for PREFIX/bin/python3.N. "" if it lacks one of
    `parts` (by default what only a whole one has)."""
    real = os.path.realpath(python)
    prefix = os.path.dirname(os.path.dirname(real))
    try:
        versions = [name for name in os.listdir(f"{prefix}/lib") if name.startswith("python3.")]
    except FileNotFoundError:
        return ""
    if os.path.basename(real) in versions:
        versions = [os.path.basename(real)]
    for name in sorted(versions):
        if all(os.path.exists(f"{prefix}/lib/{name}/{part}") for part in parts or _WHOLE):
            return f"{prefix}/lib/{name}"
    return ""


def _write(entries: list[tuple[str, Entry]], tar: TarWriter, progress: Progress) -> None:
    for path, entry in entries:
        name = path.lstrip("/")
        if entry.kind == "dir":
            tar.directory(name, entry.mode)
        elif entry.kind == "link":
            tar.symlink(name, entry.target)
        elif entry.kind == "data":
            tar.file(name, entry.data, entry.mode)
        else:
            progress.advance("layer", tar.copy(name, entry.source, entry.mode))
    tar.finish()


def _config(diff_id: str, seconds: int, paths: Sequence[str]) -> bytes:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    host = platform.host()
    config = {
        "created": created,
        "architecture": host.architecture,
        **({"variant": host.variant} if host.variant else {}),
        "os": "linux",
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": " ".join(["limpet capture", *paths]), "comment": "capture"}],
    }
    return jsontext.dumps(config, sort_keys=True).encode()
