"""The packages of a root file system: dpkg, apk, rpm, Python's and Node's.

A root may hold anything: paths are opened within it, files and their number are bounded, what can't be read is left
out.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING
from urllib.parse import quote

from limpet.build.attest import rpm
from limpet.frozen import dataclass
from limpet.kernel import fs

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ENTRIES = 2_000_000
_DATABASE = 64 << 20
_SMALL = 1 << 20
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_SKIPPED = {"proc", "sys", "dev"}
_LICENSE = re.compile(r"\(?[A-Za-z0-9.+-]+\)?( (AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """`purl` (package-url/purl-spec) identifies it; `source`: the file of the root that says so."""

    purl: str
    name: str
    version: str
    license: str = ""
    supplier: str = ""
    source: str = ""


def find(root: int) -> list[Package]:
    """`root`: a descriptor of the mounted root. Sorted, each once."""
    distribution = _release(root)
    found = {*_dpkg(root, distribution), *_apk(root, distribution), *_rpm(root, distribution), *_languages(root)}
    return sorted(found)


def _release(root: int) -> dict[str, str]:
    """os-release(5): ID, VERSION_ID."""
    for path in _OS_RELEASE:
        text = _read(root, path, _SMALL)
        if text:
            pairs = (line.partition("=")[::2] for line in text.splitlines() if "=" in line)
            return {key: value.strip().strip("\"'") for key, value in pairs}
    return {}


def _distro(release: dict[str, str]) -> str:
    return "-".join(release[key] for key in ("ID", "VERSION_ID") if release.get(key))


def _purl(kind: str, namespace: str, name: str, version: str, **qualifiers: str) -> str:
    given = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(qualifiers.items()) if value)
    where = f"{quote(namespace, safe='')}/" if namespace else ""
    return f"pkg:{kind}/{where}{quote(name, safe='')}@{quote(version, safe='')}" + (f"?{given}" if given else "")


def _dpkg(root: int, release: dict[str, str]) -> Iterator[Package]:
    """deb-src-control(5) paragraphs; a file each in status.d where there is no dpkg."""
    places = ["var/lib/dpkg/status"]
    places += [f"var/lib/dpkg/status.d/{name}" for name in _list(root, "var/lib/dpkg/status.d") if "." not in name]
    for place in places:
        for fields in _paragraphs(_read(root, place, _DATABASE), ": "):
            status = fields.get("Status", "install ok installed")
            name, version = fields.get("Package"), fields.get("Version")
            if name and version and status.endswith(" installed"):
                source = fields.get("Source", "").partition(" ")[0]
                purl = _purl(
                    "deb", release.get("ID", "debian"), name, version,
                    arch=fields.get("Architecture", ""), distro=_distro(release), upstream=source,
                )  # fmt: skip
                yield Package(purl, name, version, "", fields.get("Maintainer", ""), place)


def _apk(root: int, release: dict[str, str]) -> Iterator[Package]:
    place = "lib/apk/db/installed"
    for fields in _paragraphs(_read(root, place, _DATABASE), ":"):
        name, version = fields.get("P"), fields.get("V")
        if name and version:
            purl = _purl(
                "apk", release.get("ID", "alpine"), name, version,
                arch=fields.get("A", ""), distro=_distro(release), upstream=fields.get("o", ""),
            )  # fmt: skip
            yield Package(purl, name, version, _license(fields.get("L", "")), fields.get("m", ""), place)


def _rpm(root: int, release: dict[str, str]) -> Iterator[Package]:
    for place in rpm.PLACES:
        fd = _open(root, place, rpm.MOST_BYTES)
        if fd < 0:
            continue
        try:
            headers = rpm.headers(fd)
        finally:
            os.close(fd)
        for each in headers:
            purl = _purl(
                "rpm", release.get("ID", ""), each.name, each.version,
                arch=each.architecture, distro=_distro(release), epoch=each.epoch, upstream=each.source,
            )  # fmt: skip
            yield Package(purl, each.name, each.version, _license(each.license), each.vendor, place)
        return


def _paragraphs(text: str, separator: str) -> Iterator[dict[str, str]]:
    """Fields on a line each, paragraphs apart by an empty line; the first of several fields of a name counts."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t":
            key, found, value = line.partition(separator)
            if found:
                fields.setdefault(key, value.strip())
    if fields:
        yield fields


def _languages(root: int) -> Iterator[Package]:
    """What lies anywhere in the tree: `*.dist-info/METADATA`, `*.egg-info`, `node_modules/*/package.json`."""
    seen = 0
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        for place, directories, files, _ in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            place = place.removeprefix(".").strip("/")
            if not place:
                directories[:] = [name for name in directories if name not in _SKIPPED]
            directories.sort()
            seen += len(directories) + len(files)
            if seen > MOST_ENTRIES:
                return
            if place.endswith(".dist-info") and "METADATA" in files:
                yield from _python(root, f"{place}/METADATA")
            elif place.endswith(".egg-info") and "PKG-INFO" in files:
                yield from _python(root, f"{place}/PKG-INFO")
            elif "package.json" in files and _is_module(place):
                yield from _node(root, f"{place}/package.json")
            for name in files:
                if name.endswith(".egg-info"):
                    yield from _python(root, f"{place}/{name}")
    finally:
        os.close(top)


def _is_module(place: str) -> bool:
    """A directory of node_modules, or of a scope in it."""
    above, _, name = place.rpartition("/")
    if above.rpartition("/")[2].startswith("@"):
        above = above.rpartition("/")[0]
    return above.rpartition("/")[2] == "node_modules" and not name.startswith((".", "@"))


def _python(root: int, place: str) -> Iterator[Package]:
    """Core metadata (packaging.python.org, "Core metadata specifications"): fields up to the first empty line."""
    head = _read(root, place, _SMALL).replace("\r\n", "\n").partition("\n\n")[0]
    fields = next(_paragraphs(head, ": "), {})
    name, version = fields.get("Name"), fields.get("Version")
    if name and version:
        normal = re.sub(r"[-_.]+", "-", name).lower()
        supplier = fields.get("Author", "") or fields.get("Author-email", "")
        license_ = _license(fields.get("License-Expression", ""))
        yield Package(_purl("pypi", "", normal, version), name, version, license_, supplier, place)


def _node(root: int, place: str) -> Iterator[Package]:
    try:
        found = json.loads(_read(root, place, _SMALL))
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    name, version, license_ = found.get("name"), found.get("version"), found.get("license")
    if isinstance(name, str) and isinstance(version, str) and name and version:
        scope, slash, rest = name.rpartition("/")
        purl = _purl("npm", scope if slash else "", rest, version)
        yield Package(purl, name, version, _license(license_ if isinstance(license_, str) else ""), "", place)


def _license(text: str) -> str:
    """An SPDX expression, as far as its form says; "" for free text."""
    return text if len(text) < 200 and _LICENSE.fullmatch(text) else ""


def _open(root: int, path: str, most: int) -> int:
    """A regular file of the root, links within it followed; -1 for what is none, or larger."""
    try:
        fd = fs.openat2(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return -1
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size > most:
        os.close(fd)
        return -1
    return fd


def _read(root: int, path: str, most: int) -> str:
    """The text of a file, "" if there is none."""
    fd = _open(root, path, most)
    if fd < 0:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(most).decode("utf-8", "replace")


def _list(root: int, path: str) -> list[str]:
    try:
        fd = fs.openat2(path, os.O_RDONLY | os.O_DIRECTORY, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))[:100_000]
    finally:
        os.close(fd)
