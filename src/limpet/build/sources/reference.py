"""Which sources are fetched, and what a git reference says (Dockerfile reference, "ADD"; Docker's "Build context").

https://host/repository.git#ref:directory        a branch, tag or commit, and a directory of it
git@host:repository.git, ssh://…, git://…        the same by other ways
…?ref=&tag=&branch=&subdir=&checksum=&commit=&submodules=&keep-git-dir=&mtime=&fetch-by-commit=
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from limpet.build.language.flags import boolean
from limpet.errors import Invalid
from limpet.frozen import dataclass

_GIT_SCHEME = re.compile(r"(?:git|ssh)://", re.IGNORECASE)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_GIT_OVER_HTTP = re.compile(r"https?://[^?#]*\.git(?:[?#].*)?\Z", re.IGNORECASE | re.DOTALL)
_SCP = re.compile(r"([a-zA-Z0-9_.-]+)@([a-zA-Z0-9.-]+):(?!//)([^\s?#]+)(?:\?([^\s#]*))?(?:#(\S*))?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_SHA256 = re.compile(r"(?i:sha256):[0-9a-fA-F]{64}\Z")
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{")
"""What git-check-ref-format(1) doesn't let a name have."""
_FLAGS = ("submodules", "keep-git-dir", "fetch-by-commit")
_EXAMPLE = "write https://HOST/REPOSITORY.git#REF:DIRECTORY"


def remote_kind(source: str) -> str:
    """ "git", "http", or "" for a path."""
    if _GIT_SCHEME.match(source) or _GIT_OVER_HTTP.match(source) or _SCP.match(source):
        return "git"
    return "http" if _HTTP.match(source) else ""


def is_commit(text: str) -> bool:
    """A whole object name, SHA-1 or SHA-256."""
    return _COMMIT.match(text) is not None


def is_sha256(text: str) -> bool:
    """`sha256:` and 64 hexadecimal digits."""
    return _SHA256.match(text) is not None


@dataclass(frozen=True, slots=True)
class Repository:
    """`remote` is what git is given. `ref` "" is the default branch, `directory` "" all of it.

    `checksum` is (the beginning of) the commit that it must be. None: not said.
    """

    remote: str
    ref: str = ""
    directory: str = ""
    checksum: str = ""
    submodules: bool = True
    keep_git: bool | None = None
    commit_time: bool = False
    by_commit: bool = False

    @property
    def is_ssh(self) -> bool:
        return "://" not in self.remote or self.remote.lower().startswith("ssh://")

    @property
    def address(self) -> str:
        """The remote without a login, unless that is who one is to ssh."""
        if self.is_ssh:
            return self.remote
        parts = urlsplit(self.remote)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def host(self) -> str:
        if "://" not in self.remote:
            return self.remote.partition("@")[2].partition(":")[0]
        return urlsplit(self.remote).hostname or ""


def repository(text: str) -> Repository:
    """Raises Invalid."""
    found = _SCP.match(text)
    if found and "://" not in text:
        user, host, path, query, fragment = found.groups()
        remote = f"{user}@{host}:{path}"
        if host.startswith("-") or user.startswith("-"):
            raise Invalid(f"{text[:200]}: not an address", _EXAMPLE)
    else:
        try:
            parts = urlsplit(text)
            fit = bool(parts.hostname) and parts.port != 0 and not (parts.hostname or "-").startswith("-")
        except ValueError:
            fit = False
        if not fit or any(char.isspace() or not char.isprintable() for char in text):
            raise Invalid(f"{text[:200]!r}: not an address", _EXAMPLE)
        query, fragment = parts.query, parts.fragment
        remote = urlunsplit((parts.scheme.lower(), parts.netloc, parts.path, "", ""))
    ref, _, directory = (fragment or "").partition(":")
    return _with_query(text, Repository(remote, ref, directory), query or "")


def _with_query(text: str, plain: Repository, query: str) -> Repository:
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in values:
            raise Invalid(f"{text[:200]}: the query has {key} twice", "keep one of them")
        if not value and key not in _FLAGS:
            raise Invalid(f"{text[:200]}: the query's {key} has no value", f"write {key}=VALUE")
        values[key] = value

    def flag(key: str) -> bool | None:
        if key not in values:
            return None
        value = values.pop(key)
        try:
            return boolean(value) if value else True
        except ValueError:
            raise Invalid(f"{text[:200]}: {key}={value} is neither true nor false") from None

    submodules, keep_git, by_commit = flag("submodules"), flag("keep-git-dir"), flag("fetch-by-commit")
    refs = [plain.ref] if plain.ref else []
    for key, prefix in (("ref", ""), ("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in values:
            refs.append(prefix + values.pop(key).removeprefix(prefix))
    checksums = [values.pop(key) for key in ("checksum", "commit") if key in values]
    directories = [one for one in (plain.directory, values.pop("subdir", "")) if one]
    time = values.pop("mtime", "checkout")
    if values:
        known = "ref, tag, branch, subdir, checksum, submodules, keep-git-dir, mtime, fetch-by-commit"
        raise Invalid(f"{text[:200]}: the query has an unknown {next(iter(values))}", f"known are {known}")
    for what, several in (("refs", refs), ("checksums", checksums), ("directories", directories)):
        if len(set(several)) > 1:
            raise Invalid(f"{text[:200]}: two {what}: {' and '.join(several)}", "keep one of them")
    if time not in ("checkout", "commit"):
        raise Invalid(f"{text[:200]}: mtime={time}", "checkout or commit is wanted")
    ref = refs[0] if refs else ""
    if ref.startswith("-") or _FORBIDDEN.search(ref):
        raise Invalid(f"{text[:200]}: {ref!r} is no name of a branch, tag or commit", _EXAMPLE)
    directory = posixpath.normpath("/" + (directories[0] if directories else "")).strip("/")
    made = Repository(
        plain.remote,
        ref,
        directory,
        submodules=submodules is not False,
        keep_git=keep_git,
        commit_time=time == "commit",
        by_commit=bool(by_commit),
    )
    return with_checksum(made, checksums[0] if checksums else "")


def with_checksum(plain: Repository, checksum: str) -> Repository:
    """The same with the commit that `--checksum` wants. Raises Invalid."""
    if not checksum or checksum == plain.checksum:
        return plain
    if not _HEX.match(checksum):
        raise Invalid(
            f"invalid checksum {checksum[:100]} for a git repository", "a commit's hexadecimal name is wanted"
        )
    if plain.checksum:
        raise Invalid(f"two checksums: {plain.checksum} and {checksum}", "keep one of them")
    checksum = checksum.lower()
    if is_commit(plain.ref) and not plain.ref.startswith(checksum):
        raise Invalid(f"expected checksum to match {checksum}, got {plain.ref}", "it is not that commit")
    if plain.by_commit and not is_commit(checksum) and not is_commit(plain.ref):
        raise Invalid("fetch-by-commit needs the whole name of the commit", "checksum= takes it")
    return replace(plain, checksum=checksum)
