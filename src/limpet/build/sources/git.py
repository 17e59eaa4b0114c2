"""A commit of a git repository as files: for ADD, or as a context. BuildKit's `source/git`, by the host's `git`.

    caches/<id>/git/      a bare repository with what was fetched of this one

A name becomes a commit by `git ls-remote`, and from then on only the commit counts. Nothing of the user's settings is
read and nothing of the repository is executed: no hooks, no filters, no protocols but http, https, ssh and git, in its
submodules neither. An ssh remote is reached with the agent of `--ssh default` alone.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import stat
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from limpet.build.sources import reference
from limpet.build.sources.gitprogram import Git
from limpet.build.sources.kept import Kept
from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.frozen import dataclass
from limpet.kernel import fs
from limpet.registry import redact
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.sources.reference import Repository
    from limpet.progress import Progress
    from limpet.store.store import Store

_HEAD = re.compile(r"^ref: (refs/\S+)\tHEAD$", re.MULTILINE)
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.logAllRefUpdates": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "credential.helper": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "init.defaultBranch": "master",
    "pack.threads": "1",
    "pack.writeReverseIndex": "false",
    "protocol.version": "2",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "advice.detachedHead": "false",
}
_LIMITED = re.compile(
    r"not our ref|unadvertised object|not advertised|does not support shallow|dumb http|shallow", re.I
)


@dataclass(frozen=True, slots=True)
class Commit:
    """`id` is the commit; `ref` the whole name that led to it, "" for none; `tag` an annotated tag's own object."""

    id: str
    ref: str = ""
    tag: str = ""


class Repositories:
    """Git for one build. `secrets`: GIT_AUTH_TOKEN and GIT_AUTH_HEADER are logins; `agents`: default is for ssh."""

    def __init__(
        self,
        store: Store,
        secrets: Mapping[str, bytes],
        agents: Mapping[str, str],
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._agents = agents
        self._say = say
        self._progress = progress

    def commit(self, wanted: Repository) -> Commit:
        """The commit that a reference means now. Raises LimpetError."""
        if reference.is_commit(wanted.ref):
            return Commit(wanted.ref)
        if wanted.by_commit:
            ref = wanted.ref if wanted.ref.startswith("refs/") or not wanted.ref else f"refs/heads/{wanted.ref}"
            return Commit(wanted.checksum, ref)
        git = self._git(wanted)
        ref = wanted.ref
        if ref:
            lines = git("ls-remote", "--", git.remote, ref, f"{ref}^{{}}")
        else:
            lines = git("ls-remote", "--symref", "--", git.remote, "HEAD")
            found = _HEAD.search(lines)
            if found is None:
                raise NotFound(f"{git.shown}: it has no default branch", "name a branch: #BRANCH")
            ref, lines = found[1], lines.replace("\tHEAD", f"\t{found[1]}")
        ids = {name: id for id, _, name in (line.partition("\t") for line in lines.splitlines())}
        branch, tag = (f"refs/{kind}/{ref.removeprefix(f'refs/{kind}/')}" for kind in ("heads", "tags"))
        whole = f"refs/{ref.removeprefix('refs/')}"
        # As git-checkout: a branch comes before a tag of the same name.
        name = next((each for each in (whole, branch, tag) if each in ids), "")
        if not name or not reference.is_commit(ids[name]):
            raise NotFound(f"{git.shown}: it has no branch, tag or commit {ref}", "a commit needs its whole name")
        peeled = ids.get(f"{name}^{{}}", "")
        if wanted.checksum and not any(id.startswith(wanted.checksum) for id in (ids[name], peeled) if id):
            message = f"{git.shown}: expected checksum to match {wanted.checksum}, got {peeled or ids[name]}"
            raise Corrupt(message, f"{ref} is another commit now")
        return Commit(peeled, name, ids[name]) if peeled else Commit(ids[name], name)

    def checkout(self, wanted: Repository, commit: Commit, directory: str, *, keep_git: bool) -> tuple[str, int]:
        """Puts the commit into an empty directory; (the path of what was wanted of it, its time in Unix seconds)."""
        git = self._git(wanted)
        with Kept(self._store, "git", git.remote, self._say) as place:
            home = f"{place}/git"
            self._fetch(git, home, commit)
            here = git.at(home, directory)
            when = int(here("log", "-1", "--format=%ct", commit.id) or 0)
            keep_git = keep_git and not wanted.directory
            inside = f"{directory}/.git" if keep_git else self._store.temporary("git")
            try:
                _new(git, inside, commit)
                if keep_git:
                    _minimal(here, inside, commit, git.remote)
                else:
                    _borrow(here, inside, home, git.remote)
                work = git.at(inside, directory)
                work("read-tree", "--reset", "-u", commit.id)
                if wanted.submodules and stat.S_ISREG(_mode(f"{directory}/.gitmodules")):
                    work("submodule", "update", "--init", "--recursive", "--depth=1", "--progress")
                    _forget_submodules(directory, inside)
                if keep_git:
                    # An index with the times and inodes of this place would be another one at each build.
                    os.unlink(f"{inside}/index")
                    work("read-tree", commit.id)
            finally:
                if not keep_git:
                    remove_tree(inside)
        return _inside(directory, wanted, git.shown), when

    def _fetch(self, git: Git, home: str, commit: Commit) -> None:
        here = git.at(home)
        wanted = commit.tag or commit.id
        if os.path.isdir(home):
            if here.succeeds("cat-file", "-e", f"{wanted}^{{commit}}"):
                return
            if here("rev-parse", "--show-object-format").strip() != _format(commit.id) or not os.path.exists(
                f"{home}/HEAD"
            ):
                remove_tree(home)
        for name in os.listdir(os.path.dirname(home)):
            if name.startswith("git-"):  # begun by one that was killed
                remove_tree(f"{os.path.dirname(home)}/{name}")
        if not os.path.isdir(home):
            new = f"{home}-{os.urandom(4).hex()}"
            git("init", "-q", "--bare", "--template=", f"--object-format={_format(commit.id)}", new)
            os.rename(new, home)
        _tidy(home)
        self._progress.begin(git.remote, git.shown)
        begin = ("fetch", "--no-write-fetch-head", "--force", "--progress", "--no-recurse-submodules")
        try:
            here(*begin, "--no-tags", "--depth=1", "--", git.remote, f"{wanted}:refs/limpet/{wanted}")
        except LimpetError as e:
            if not _LIMITED.search(e.message):
                raise
            deeper = ["--unshallow"] if os.path.exists(f"{home}/shallow") else []
            here(*begin, "--tags", *deeper, "--", git.remote, "+refs/heads/*:refs/limpet/heads/*")
        if not here.succeeds("cat-file", "-e", f"{wanted}^{{commit}}"):
            raise NotFound(f"{git.shown}: it has no commit {wanted}", "check the name; it may have been removed there")
        self._progress.finish(git.remote, "done")

    def _git(self, wanted: Repository) -> Git:
        program = shutil.which("git")
        if program is None:
            raise NotFound("git is not installed: a git repository can't be fetched", "apt install git")
        remote = wanted.address
        settings = dict(_SETTINGS)
        login = ""
        if not wanted.is_ssh:
            parts = urlsplit(wanted.remote)
            if parts.username is not None:
                pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                login = f"Basic {base64.b64encode(pair.encode()).decode()}"
                redact.conceal(unquote(parts.password or "") or unquote(parts.username))
            if parts.scheme in ("http", "https"):
                login = self._login(wanted.host) or login
                if login:
                    settings[f"http.{remote}.extraheader"] = f"Authorization: {login}"
        environment = self._ssh(wanted) if wanted.is_ssh else {}
        # git looks for a repository above where it stands, and would read its settings.
        environment["GIT_CEILING_DIRECTORIES"] = self._store.root
        return Git(program, remote, settings, environment, f"{self._store.root}/tmp")

    def _login(self, host: str) -> str:
        for name in (f"GIT_AUTH_HEADER.{host}", f"GIT_AUTH_TOKEN.{host}", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"):
            if name not in self._secrets:
                continue
            text = self._secrets[name].decode("latin-1").strip()
            if any(not char.isprintable() for char in text):
                raise Invalid(f"the secret {name} is no value of a header", "one line is wanted")
            redact.conceal(text)
            if "HEADER" in name:
                return text
            return f"Basic {base64.b64encode(f'x-access-token:{text}'.encode('latin-1')).decode()}"
        return ""

    def _ssh(self, wanted: Repository) -> dict[str, str]:
        socket = self._agents.get("default")
        if socket is None:
            raise NotFound(f"{wanted.host}: an ssh agent is needed to fetch from there", "give it with --ssh default")
        os.makedirs(f"{self._store.root}/cache", 0o700, exist_ok=True)
        own, users = f"{self._store.root}/cache/known_hosts", os.path.expanduser("~/.ssh/known_hosts")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "15",
            "IdentityFile": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": f'"{own}" "{users}"',
        }
        words = ["ssh", "-F", os.devnull]
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        return {"SSH_AUTH_SOCK": os.path.abspath(socket), "GIT_SSH_COMMAND": shlex.join(words)}


def _tidy(home: str) -> None:
    """Takes away what a fetch left that was killed."""
    for name in ("shallow.lock", "packed-refs.lock"):
        if os.path.exists(f"{home}/{name}"):
            os.unlink(f"{home}/{name}")
    for name in os.listdir(f"{home}/objects/pack"):
        if name.startswith("tmp_"):
            os.unlink(f"{home}/objects/pack/{name}")


def _new(git: Git, inside: str, commit: Commit) -> None:
    git("init", "-q", "--bare", "--template=", f"--object-format={_format(commit.id)}", inside)
    os.makedirs(f"{inside}/objects/pack", exist_ok=True)
    os.makedirs(f"{inside}/objects/info", exist_ok=True)


def _borrow(here: Git, inside: str, home: str, remote: str) -> None:
    """A repository of no objects of its own, for the time of one checkout."""
    with open(f"{inside}/objects/info/alternates", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{home}/objects\n")
    if os.path.exists(f"{home}/shallow"):
        shutil.copy(f"{home}/shallow", f"{inside}/shallow")
    here.at(inside)("config", "remote.origin.url", remote)  # what a submodule's `../other.git` is relative to


def _minimal(here: Git, inside: str, commit: Commit, remote: str) -> None:
    """This commit and nothing else, the same to the byte wherever it is made."""
    tree = here("rev-parse", f"{commit.id}^{{tree}}").strip()
    names = [line.partition("\t")[0].split() for line in here("ls-tree", "-r", "-t", "-z", commit.id).split("\0")]
    objects = [commit.tag, commit.id, tree, *(name[2] for name in names if name and name[1] != "commit")]
    listed = "\n".join(dict.fromkeys(each for each in objects if each)) + "\n"
    here("pack-objects", "-q", "--no-reuse-delta", "--no-reuse-object", f"{inside}/objects/pack/pack", text=listed)
    if "\nparent " in here("cat-file", "commit", commit.id).partition("\n\n")[0]:
        with open(f"{inside}/shallow", "w", encoding="ascii") as file:
            file.write(f"{commit.id}\n")
    own = here.at(inside)
    if commit.ref:
        own("update-ref", commit.ref, commit.tag or commit.id)
    own("update-ref", "--no-deref", "HEAD", commit.id)
    own("config", "core.bare", "false")
    own("config", "core.logallrefupdates", "true")
    own("config", "remote.origin.url", remote)
    own("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")


def _forget_submodules(directory: str, inside: str) -> None:
    """Leaves their files only: no tree has a file called .git, so that each one is git's own link."""
    for place, directories, files in os.walk(directory):
        if place == directory:
            if ".git" in directories:
                directories.remove(".git")
        elif ".git" in files:
            os.unlink(f"{place}/.git")
        elif ".git" in directories:
            directories.remove(".git")
            remove_tree(f"{place}/.git")
    if os.path.isdir(f"{inside}/modules"):
        remove_tree(f"{inside}/modules")


def _inside(directory: str, wanted: Repository, shown: str) -> str:
    """The path of the wanted directory. Raises NotFound, Invalid for one that a link leads to."""
    if not wanted.directory:
        return directory
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS
        os.close(fs.openat2(wanted.directory, os.O_RDONLY | os.O_DIRECTORY, dirfd=top, resolve=resolve))
    except OSError as e:
        raise NotFound(
            f"{shown}: it has no directory {wanted.directory}: {e.strerror}", "check the part after #…:"
        ) from e
    finally:
        os.close(top)
    return f"{directory}/{wanted.directory}"


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _format(commit: str) -> str:
    return "sha256" if len(commit) == 64 else "sha1"
