"""The Dockerfiles of `tests/dockerfiles` as cases, the engines that build them, and where they are known to differ.

A case is a directory YEAR-NAME: a Dockerfile, its context, and three files that are no part of the context:

    prepare.sh        makes what git does not keep (modes, hard links, xattrs, archives); runs in the copied context
    Dockerfile.peer   the same image said in words that older builders know, where the year's own are too new for them
    `# options: …`    the last line of the Dockerfile, if it is one: flags of `build`

`recorded.json` beside them has what buildah and docker made of each; `python -m tests.build.record` makes it again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.build.contents import Contents, File, settings

ROOT = Path(__file__).resolve().parent.parent / "dockerfiles"
RECORDED = ROOT / "recorded.json"

LIVE = (
    "2013-blank-continuation", "2013-env-old-form", "2014-add-tarball", "2014-dockerignore", "2014-node-onbuild",
    "2015-copy-json", "2015-symlinks", "2016-escape-backtick", "2017-chown", "2017-scratch-static", "2018-modes",
    "2019-deletions", "2020-wildcards", "2024-copy-parents", "2026-everything",
)  # fmt: skip
"""Compared with a real buildah in every `./check`; all the others with what was recorded."""

QUICK = ("2013-hello", "2017-multistage-go", "2021-heredoc-copy")


@dataclass(frozen=True)
class Difference:
    """Lines of `compare` that are expected, as a regular expression. `peers` and `cases` are all of them if empty."""

    line: str
    what: str
    reason: str
    peers: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


_STUB = r"-0755 0:0 0:e3b0c44298fc1c14"  # an empty file

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        rf"/etc/(hostname|hosts|resolv\.conf): nothing \| {_STUB}|/run: nothing \| d0755 0:0",
        "`/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`, `/run` after a `RUN`",
        "limpet takes away what it has put there for the step; buildah leaves empty files",
        peers=("buildah",),
    ),
    Difference(
        r"Hostname: nothing \| [0-9a-f]{12}",
        "`Hostname` of the config",
        "a random name would make each build another image",
        peers=("buildah",),
    ),
    Difference(
        r"Labels io\.buildah\.version: nothing \| .*",
        "the label `io.buildah.version`",
        "the name of the builder is no part of what was asked for",
        peers=("buildah",),
    ),
    Difference(
        r"ArgsEscaped: nothing \| true",
        "`ArgsEscaped` of the config",
        "means nothing outside Windows; BuildKit no longer writes it",
        peers=("docker",),
    ),
    Difference(
        r"WorkingDir: / \| nothing",
        "`WorkingDir` of an image from `scratch`",
        "`/`, as BuildKit writes it; buildah leaves it out",
        peers=("buildah",),
    ),
    Difference(
        r"/(data|vol one|vol two): nothing \| d0755 0:0",
        "the directory of a `VOLUME` that is not there",
        "made when a container starts, as by BuildKit; buildah makes it in the image",
        peers=("buildah",),
        cases=("2013-add-everything", "2015-copy-json"),
    ),
    Difference(
        r"/(ctx|in|t|cache|mnt|root/\.cache(/\w[\w-]*)?|var/cache(/apk)?): nothing \| d0755 0:0",
        "places that `RUN --mount` needs",
        "limpet takes away those that it made and the step left empty; the others leave them in the layer",
        cases=("2019-bind-mount", "2019-cache-mount", "2024-uv", "2026-everything"),
    ),
    Difference(
        r"WorkingDir: (/\w+) \| \1/",
        "`WORKDIR /root/`",
        "the path is cleaned, as today's BuildKit does",
        cases=("2017-multistage-go",),
    ),
    Difference(
        r"/args: .*",
        "`ENV NAME` and then `ARG NAME` with a `--build-arg`",
        "the last one wins, as in BuildKit; in buildah `ENV` does",
        peers=("buildah",),
        cases=("2015-arg-stopsignal",),
    ),
    Difference(
        r"(/win|Env WINDOWS|Labels b): .*",
        "values with backslashes below `# escape=` and a backtick",
        "the backslash is a plain character then, as in BuildKit; buildah goes on taking it away",
        peers=("buildah",),
        cases=("2016-escape-backtick",),
    ),
    Difference(
        r"(Cmd|Entrypoint): \[\"/bin/sh\", \"-exc\", .*",
        "`CMD` and `ENTRYPOINT` in the shell form after `SHELL`",
        "go through that shell, as the reference says; in buildah 1.28 through `/bin/sh -c`",
        peers=("buildah",),
        cases=("2016-shell",),
    ),
    Difference(
        r"/(out|tools)/\w+: [-d][2-7](\d\d\d) (.*) \| [-d][01]\2 \3",
        "setuid and setgid of files that are copied",
        "kept, as by BuildKit; buildah 1.28 drops them",
        peers=("buildah",),
        cases=("2018-modes",),
    ),
    Difference(
        r"/(d/b|d/z|sep/c): .*",
        "a hard link, when a later step writes to one of its names",
        "that name becomes a file of its own, as on every overlay with layers; buildah was asked for one layer",
        peers=("buildah",),
        cases=("2019-hardlinks",),
    ),
    Difference(
        r"/(new|new/dir|secret): d0[46][04]0 (.*) \| d0755 \2",
        "directories that `COPY --chmod=640` makes on the way",
        "have that mode, as in today's BuildKit; in both of these they have 0755",
        cases=("2020-copy-chmod",),
    ),
    Difference(
        r"/owned/(a|dir): (\S+) 1000:1000(.*) \| \2 3:4\3",
        "`ADD --chown` of an archive",
        "its files get that owner, as in today's BuildKit; in both of these they keep the archive's",
        cases=("2023-add-archives",),
    ),
    Difference(
        r"/linked: d0755 1000:1000 \| d0755 0:0",
        "directories on the way of `COPY --link --chown`",
        "belong to the copy, which knows nothing below it, as in BuildKit; the peers got `COPY` without `--link`",
        cases=("2021-copy-link",),
    ),
    Difference(
        r"Healthcheck StartInterval: 2000000000 \| nothing",
        "`HEALTHCHECK --start-interval`",
        "newer than both",
        cases=("2023-start-interval",),
    ),
    Difference(
        r"/x: .* \{'user\.note': .*\} \| -0644 0:0 [^{]*",
        "extended attributes in an archive that `ADD` unpacks",
        "kept, as by buildah; BuildKit writes no others than `security.capability`",
        peers=("docker",),
        cases=("2025-xattrs",),
    ),
)

CANNOT: dict[tuple[str, str], str] = {
    ("2017-stage-of-stage", "buildah"): "a stage whose name has capitals is not found by its name in small letters",
    ("2022-rust", "buildah"): "no `sharing=private`",
    ("2024-uv", "buildah"): "a bind of a file whose place is not there is refused",
}
"""What a peer does not build; the other one does."""


def cases() -> list[str]:
    """Those of a year; `debian-12` is of none, as its base is not always the same."""
    return sorted(each.name for each in ROOT.iterdir() if (each / "Dockerfile").exists() and each.name[0] == "2")


@dataclass(frozen=True)
class Case:
    """Laid out: `context` is a copy, `dockerfile` is beside it; options are those of every engine's `build`."""

    name: str
    context: Path
    dockerfile: Path
    options: tuple[str, ...]

    @property
    def peer(self) -> Path:
        """What an older builder is given."""
        found = self.dockerfile.with_name("Dockerfile.peer")
        return found if found.exists() else self.dockerfile


def lay_out(name: str, place: Path, *, umask: int = 0o022, mtime: float | None = None) -> Case:
    """Modes are those that git keeps, whatever the umask of the checkout; only then comes what `prepare.sh` does."""
    context = place / "context"
    shutil.copytree(ROOT / name, context, symlinks=True)
    for directory, _, files in os.walk(context):
        os.chmod(directory, 0o755)
        for each in files:
            path = Path(directory, each)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    for each in ("Dockerfile", "Dockerfile.peer"):
        if (context / each).exists():
            (context / each).rename(place / each)
    script = context / "prepare.sh"
    if script.exists():
        script.rename(place / "prepare.sh")
        subprocess.run(["sh", "../prepare.sh"], cwd=context, check=True, umask=0o022)
    last = (place / "Dockerfile").read_text().splitlines()[-1]
    options = shlex.split(last.partition(":")[2]) if last.startswith("# options:") else []
    dockerfile = place / "Dockerfile"
    if "-f" in options:
        at = options.index("-f")
        dockerfile = context / options[at + 1]
        del options[at : at + 2]
    if mtime is not None:
        for directory, names, files in os.walk(context):
            for each in (*names, *files):
                os.utime(Path(directory, each), (mtime, mtime), follow_symlinks=False)
    return Case(name, context, dockerfile, tuple(re.sub("src=", f"src={context}/", each) for each in options))


class Buildah:
    """`buildah build` in a storage of its own. Bases are taken in when a Dockerfile names them."""

    name = "buildah"

    def __init__(self, place: Path, bases: Path) -> None:
        self._place = place
        self._bases = bases
        self._known: set[str] = set()

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # A run root of more than 50 letters is refused.
        command = ["buildah", "--root", f"{self._place}/root", "--runroot", f"{self._place}/run"]
        command += ["--storage-driver", "overlay", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    def build(self, case: Case, to: Path) -> tuple[int, str]:
        """To a `dir:`; (exit code, standard error)."""
        self._need(case.peer.read_text())
        flags = ["--format", "docker", "--pull-never", "--isolation", "chroot", "--layers=false", "--network", "host"]
        result = self.run("build", "-q", *flags, *case.options, "-f", case.peer, "-t", f"dir:{to}", case.context)
        return result.returncode, result.stderr

    def version(self) -> str:
        return self.run("--version").stdout.split(" (")[0].strip()

    def take(self, root: Path, name: str) -> None:
        """An image of a root file system's tar."""
        container = self.run("from", "scratch").stdout.strip()
        for step in (("add", "-q", container, root, "/"), ("commit", "-q", container, name), ("rm", container)):
            done = self.run(*step)
            assert done.returncode == 0, done.stderr

    def _need(self, text: str) -> None:
        from tests.build import bases

        for name in bases.names():
            tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
            short = name.partition(":")[0]
            if name not in self._known and short in text:
                self._known.add(name)
                done = self.run("pull", "-q", f"docker-archive:{self._bases}:{tag}")
                assert done.returncode == 0, done.stderr


class Docker:
    """`docker build` with BuildKit, by a daemon that is there at `socket`, where the bases are loaded already."""

    name = "docker"

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["/usr/bin/docker", "-H", f"unix://{self._socket}", *map(str, arguments)]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    def build(self, case: Case, to: Path) -> tuple[int, str]:
        text = case.peer.read_text()
        # A front end is an image that would be fetched: the daemon's own reads the file.
        path = case.context.parent / "Dockerfile.docker"
        beside = Path(f"{case.peer}.dockerignore")
        if beside.exists():
            path = case.peer
        path.write_text(re.sub(r"^# *syntax *=.*", "#", text, flags=re.MULTILINE))
        result = self.run("build", "-q", "--network", "host", *case.options, "-f", path, "-t", "corpus", case.context)
        if result.returncode == 0:
            host = f"unix://{self._socket}"
            copy = ["skopeo", "copy", "-q", "--src-daemon-host", host, "docker-daemon:corpus:latest", f"dir:{to}"]
            subprocess.run(copy, check=True, capture_output=True)
        return result.returncode, result.stderr

    def version(self) -> str:
        found = self.run("version", "--format", "{{.Server.Version}}").stdout.strip()
        return f"docker {found} with BuildKit"


def reduced(found: Contents, base: dict[str, File]) -> dict[str, Any]:
    """What is written down of an image: the config, and the files that are not just those of the base."""
    of_base = {
        each.content: path for path, each in base.items() if each.kind == "-" and not each.content.startswith("0:")
    }
    files: dict[str, str] = {}
    has_base = "bin/busybox" in found.files
    for path, each in sorted(found.files.items()):
        shown = each.shown()
        if has_base and path in base and base[path].shown() == shown:
            continue
        if each.content in of_base:  # its hash is the Debian package's, which changes
            shown = shown.replace(each.content, f"<{of_base[each.content]}>")
        files[path] = shown
    if has_base:
        kind = {path for path in base if "usr/lib/stub" in found.files or not _of_tools(path, base)}
        files |= dict.fromkeys(sorted(kind - found.files.keys()), "—")
    return {"files": files, "config": settings(found.config)}


def everything(found: Contents) -> dict[str, Any]:
    """The same of an image with all its files."""
    return {"files": {path: each.shown() for path, each in found.files.items()}, "config": settings(found.config)}


def _of_tools(path: str, base: dict[str, File]) -> bool:
    return path in ("entry", "bin/bash", "usr/lib/stub") or base[path].content == "../lib/stub"


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """`/path: ours | theirs`, `Field: ours | theirs`: one line for each difference."""
    lines = []
    for prefix, part in (("/", "files"), ("", "config")):
        left, right = _flat(ours[part]), _flat(theirs[part])
        lines += [
            f"{prefix}{key}: {_text(left.get(key))} | {_text(right.get(key))}"
            for key in sorted(left.keys() | right.keys())
            if left.get(key) != right.get(key)
        ]
    return lines


def _flat(part: dict[str, Any]) -> dict[str, Any]:
    """Each variable, each label and each volume is an entry of its own."""
    flat: dict[str, Any] = {}
    for key, value in part.items():
        flat |= {f"{key} {name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else "nothing" if value is None else json.dumps(value, sort_keys=True)


def unexpected(lines: list[str], peer: str, case: str, used: set[Difference] | None = None) -> list[str]:
    """The lines that no entry of `DIFFERENCES` has."""
    rest = []
    for line in lines:
        fitting = [
            each
            for each in DIFFERENCES
            if (not each.peers or peer in each.peers)
            and (not each.cases or case in each.cases)
            and re.fullmatch(each.line, line, re.DOTALL)
        ]
        if used is not None:
            used.update(fitting)
        if not fitting:
            rest.append(line)
    return rest


def table() -> str:
    """`DIFFERENCES` and `CANNOT` as docs/dockerfile-compat.md shows them."""
    lines = ["| what | differs from | limpet |", "|---|---|---|"]
    lines += [f"| {each.what} | {', '.join(each.peers) or 'buildah, docker'} | {each.reason} |" for each in DIFFERENCES]
    lines += ["", "| not built by | of | because |", "|---|---|---|"]
    lines += [f"| {peer} | `{case}` | {reason} |" for (case, peer), reason in CANNOT.items()]
    return "\n".join(lines) + "\n"
