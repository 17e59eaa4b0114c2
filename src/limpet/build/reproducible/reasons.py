"""Why files usually differ from one build to the next, and what helps: by the file's name, then by what is in it.

What is known of names is from the Debian reproducible builds project's list of issues
(https://tests.reproducible-builds.org/debian/index_issues.html) and from the tools' own documentation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from limpet.build.reproducible import inside
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.reproducible.differ import Content, Difference

_CONTEXT = 64
_LOOKED_AT = 1 << 20


@dataclass(frozen=True, slots=True)
class Reason:
    """`why`: what it is, without the file's name. `remedy`: what to write in the Dockerfile. `notes`: particulars."""

    why: str
    remedy: str
    notes: tuple[str, ...] = ()


_PLACES = [
    (re.compile(pattern), why, remedy)
    for pattern, why, remedy in (
        (r"var/log/", "a log", "rm -rf /var/log/* at the end of the same RUN"),
        (
            r"var/cache/ldconfig/aux-cache\Z",
            "ldconfig's cache holds inode numbers and times",
            "rm -f /var/cache/ldconfig/aux-cache at the end of the same RUN",
        ),
        (
            r"(etc|var/lib/dbus)/machine-id\Z",
            "the machine's random id",
            "truncate it, : > /etc/machine-id: it is made when the machine boots",
        ),
        (
            r"etc/ssh/ssh_host_\w*key",
            "a random host key, and the same for all containers of the image",
            "rm /etc/ssh/ssh_host_*, and ssh-keygen -A when the container starts",
        ),
        (
            r"etc/ssl/(private|certs)/(ssl-cert-snakeoil|[0-9a-f]{8}\.\d\Z)",
            "a random key and its certificate",
            "rm it, and make it when the container starts",
        ),
        (
            r"etc/shadow-?\Z",
            "the day of the last change of a password",
            "ENV or ARG SOURCE_DATE_EPOCH, which useradd and passwd take as today; or chage -d 0 NAME",
        ),
        (
            r"var/lib/(systemd|urandom)/random-seed\Z|var/lib/systemd/credential.secret\Z",
            "random numbers",
            "rm it at the end of the same RUN",
        ),
        (
            r"var/lib/apt/(lists|periodic)/|var/lib/apt/extended_states\Z",
            "apt's lists, as the server has them at the moment",
            "rm -rf /var/lib/apt/lists/* at the end of the same RUN; packages of one moment: snapshot.debian.org",
        ),
        (r"var/cache/apt/", "apt's cache", "rm -rf /var/cache/apt/* at the end of the same RUN"),
        (
            r"(var/cache/fontconfig/|.*/\.uuid\Z)",
            "fontconfig's cache holds times",
            "rm -rf /var/cache/fontconfig/* at the end of the same RUN",
        ),
        (r"usr/share/icons/.*/icon-theme\.cache\Z", "the icon cache holds the order of directories", "rm it"),
        (r"var/cache/(debconf|man)/", "a cache of Debian's", "rm -rf /var/cache/debconf/*-old /var/cache/man/*"),
        (
            r"var/(lib|cache)/(dnf|yum|rpm)/|usr/lib/sysimage/rpm/|var/lib/rpm-state/",
            "the package database holds the time of the installation",
            "dnf clean all && rm -rf /var/cache/dnf /var/lib/dnf/history*; rpm takes SOURCE_DATE_EPOCH for its times",
        ),
        (r"(var/cache/apk|lib/apk/db/scripts\.tar)", "apk's cache, with times", "apk add --no-cache"),
        (
            r"(.*/)?(mkmf\.log|gem_make\.out)\Z",
            "the log of a native extension's build",
            "find / -name mkmf.log -o -name gem_make.out | xargs rm -f at the end of the same RUN",
        ),
        (
            r"(root|home/[^/]+)/\.npm/|(.*/)?node_modules/\.(package-lock\.json|yarn-integrity|cache/)",
            "npm's cache and logs",
            "npm ci --no-audit --cache /tmp/npm && rm -rf /tmp/npm, or RUN --mount=type=cache,target=/root/.npm",
        ),
        (
            r"(.*/)?(_remote\.repositories|resolver-status\.properties|[^/]*\.lastUpdated)\Z",
            "Maven's record of downloads, with times",
            "RUN --mount=type=cache,target=/root/.m2",
        ),
        (r".*/classes(_nocoops)?\.jsa\Z", "Java's class data archive", "java -Xshare:auto without -Xshare:dump"),
        (r".*/cacerts\Z", "a key store holds the times of its entries", "take the base image's, or copy a fixed one"),
        (
            r"(root|home/[^/]+)/\.cache/|root/\.cargo/registry/|root/go/pkg/|root/\.gradle/",
            "a tool's cache",
            "RUN --mount=type=cache,target=… for it, or rm it at the end of the same RUN",
        ),
        (r"(var/)?tmp/", "a temporary file", "rm it at the end of the same RUN, or RUN --mount=type=tmpfs,target=/tmp"),
        (r"run/", "what belongs to a running system only", "RUN --mount=type=tmpfs,target=/run"),
    )
]

_ARCHIVES = {
    "gzip": ("the header of a gzip file holds a time", "gzip -n"),
    "ar": ("the members of a static library hold times", "ar with D: ar rcD; or ENV ZERO_AR_DATE=1"),
    "zip": (
        "the members of a zip or jar hold times",
        "zip -X after touch -d @0; jar --date=1980-01-01T00:00:02Z; Maven: project.build.outputTimestamp",
    ),
    "tar": ("the members of a tar hold times", "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner"),
    "pyc": (
        "a compiled Python file holds the time of its source",
        "ENV PYTHONDONTWRITEBYTECODE=1, or python3 -m compileall --invalidation-mode checked-hash; "
        "with ARG SOURCE_DATE_EPOCH py_compile does so itself",
    ),
}
_TIMES = re.compile(
    rb"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? |"
    rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}\d{1,2}|\d{4}/\d\d/\d\d|(?<!\d)20\d{6}(\d{6})?(?!\d)"
)
_SECONDS = re.compile(rb"(?<!\d)1\d{9}(\d{3}|\d{6}|\d{9})?(?!\d)")
_RANDOM = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|[A-Za-z0-9+/]{20,}={0,2}")
_TIME = "a time is written into it"
_TIME_REMEDY = "give the tool a fixed time: ENV or ARG SOURCE_DATE_EPOCH, which many take; or leave the time out"
_RANDOM_REMEDY = "give the tool a fixed seed or id, or make it when the container starts"


def reason(difference: Difference) -> Reason | None:
    """None if nothing is known about it."""
    looked = inside.describe(difference) if difference.kind == "content" else None
    notes = looked.notes if looked is not None else ()
    if looked is not None and looked.only_times:
        return Reason(*_ARCHIVES[looked.what], notes)
    for pattern, why, remedy in _PLACES:
        if pattern.match(difference.path):
            return Reason(why, remedy, notes)
    if difference.kind in ("first only", "second only"):
        return Reason("its name is another one in each build, or it is made by chance", "name it, or rm it", notes)
    if difference.kind == "time":
        return Reason("a time before SOURCE_DATE_EPOCH is set with touch or utime", "touch -d @0", notes)
    if difference.contents is None:
        return None
    found = _of_text(*_around(difference))
    if found is None and looked is not None and looked.unpacked is not None:
        found = _of_text(*(each[:_LOOKED_AT] for each in looked.unpacked))
    if found is not None:
        return Reason(*found, notes)
    if any("order of the members" in note for note in notes):
        return Reason("files are taken in the order of the directory", "sort them: find … | sort | …", notes)
    return Reason("what is in it differs", "", notes) if notes else None


def _of_text(one: bytes, two: bytes) -> tuple[str, str] | None:
    """What two texts say that differ."""
    first, second = one.split(b"\n"), two.split(b"\n")
    if len(first) > 2 and first != second and sorted(first) == sorted(second):
        return "the same lines in another order", "sort them: find, ls -U and glob give the order of the directory"
    for pattern, why, remedy in (
        (_TIMES, _TIME, _TIME_REMEDY),
        (_SECONDS, _TIME, _TIME_REMEDY),
        (_RANDOM, "a random value is written into it", _RANDOM_REMEDY),
    ):
        found = [{each.group() for each in pattern.finditer(text)} for text in (one, two)]
        if found[0] != found[1] and found[0] and found[1]:
            return why, remedy
    return None


def _around(difference: Difference) -> tuple[bytes, bytes]:
    """All of two small files; of larger ones what is around the first range."""
    assert difference.contents is not None
    one, two = difference.contents
    if max(one.size, two.size) <= _LOOKED_AT:
        return one.read(0, one.size), two.read(0, two.size)
    first = difference.ranges[0]
    return _part(one, first.start, first.end), _part(two, first.start, first.other)


def _part(content: Content, start: int, end: int) -> bytes:
    begin = max(0, start - _CONTEXT)
    return content.read(begin, min(end + _CONTEXT - begin, _LOOKED_AT))
