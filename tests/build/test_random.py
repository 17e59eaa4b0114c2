"""Dockerfiles and contexts made by chance, without RUN: what limpet makes of them, and what buildah does.

What the two are known to see differently (docs/dockerfile-compat.md) is not drawn: wildcards that match nothing,
several files for a destination without a slash, exceptions with wildcards or for directories, files onto directories,
setuid, ranges of ports.
`LIMPET_EXAMPLES=300` draws that many new ones; else it is the same few each time.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st
from tests.build import bases, corpus
from tests.build.contents import read
from tests.conftest import Runner, runner

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("LIMPET_EXAMPLES", "0"))

# ------------------------------------------------------------------ the context

NAMES = ("a", "b.txt", "c.md", "d", "e.txt", ".h", "a b", "é", "x-1")
FILES = ("a", "b.txt", "c.md", "d/a", "d/b.txt", "d/e.txt", "d/d/c.md", "d/d/x-1", ".h", "e/a b", "e/é", "e/e.txt")
"""Of these some are there. `d` and `e` are always directories."""
MODES = (0o644, 0o600, 0o755, 0o640, 0o444)
IGNORE = (
    "*.txt", "*.md", "d", "d/d", "**/a", "d/*", "/b.txt", "*/*.txt", "**/*.md", "e", "?", "# x", "", "!d/a", "!b.txt",
    "!d/d/x-1", "**/d", "[a-c]*", "e/a b", "d/",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What one example is made of."""

    files: dict[str, tuple[str, int]]
    links: dict[str, str]
    hard: dict[str, str]
    ignore: tuple[str, ...]
    text: str


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(st.sampled_from(FILES), min_size=5, unique=True))
    files = {name: (draw(st.sampled_from(("", "1", "two"))), draw(st.sampled_from(MODES))) for name in names}
    links, hard = {}, {}
    if draw(st.booleans()):
        # Below a directory that no pattern here ends in: what a named link means is a matter of `tests/dockerfiles`.
        links = {"d/d/to-b": "../b.txt", "d/d/to-d": "..", "d/d/broken": "no/where", "d/d/abs": "/etc/passwd"}
        links = {name: links[name] for name in draw(st.lists(st.sampled_from(sorted(links)), unique=True))}
    if draw(st.booleans()):
        hard = {"d/hard": draw(st.sampled_from(names)), "hard2": draw(st.sampled_from(names))}
    ignore = tuple(draw(st.lists(st.sampled_from(IGNORE), max_size=4)))
    lines = ["FROM small"]
    if draw(st.booleans()):
        lines = ["FROM small AS first", *(draw(copies(files, number)) for number in range(2)), "FROM small"]
    has_first = len(lines) > 1
    for number in range(2, draw(st.integers(4, 10))):
        kind = draw(st.integers(0, 9))
        if kind < 5:
            lines.append(draw(copies(files, number)))
        elif kind < 6 and has_first:
            source = draw(
                st.sampled_from(("/etc/passwd", "/real", "/work", "/link", "/etc/*", "real/de*", "/work/file"))
            )
            chown = draw(st.sampled_from(("", "--chown=user:extra ", "--chown=7 ")))
            lines.append(f"COPY --from=first {chown}{source} /from{number}/")
        else:
            lines.append(draw(st.one_of(variables(), others())))
    return Plan(files, links, hard, ignore, "\n".join(lines) + "\n")


# ------------------------------------------------------------------ the instructions


@st.composite
def copies(draw: st.DrawFn, files: dict[str, tuple[str, int]], number: int) -> str:
    name = draw(st.sampled_from(("COPY", "COPY", "ADD")))
    flags = draw(st.sampled_from(("", "", "--chown=user ", "--chown=7:8 ", "--chown=www-data:extra ", "--chown=9 ")))
    present = sorted(files)
    plain = [each for each in present if " " not in each]
    source = draw(
        st.one_of(
            st.sampled_from(plain),
            st.sampled_from(plain).map(lambda path: f"./{path}"),
            st.sampled_from(plain).map(lambda path: f"/{path}"),
            st.sampled_from(plain).map(_wild),
            st.sampled_from((".", "./", "/", "d", "d/", "e", "/d/", "d/../e", "t.tar", "d/.", "*", "d/*", "e/*")),
        )
    )
    several = draw(st.booleans())
    if several:
        source += " " + draw(st.sampled_from([*plain, "d", "e"]))
    slash = several or any(char in source for char in "*?[") or draw(st.booleans())
    place = draw(
        st.sampled_from(
            (
                *(f"/n{number}", f"/n{number}/sub", f"rel{number}", f"./rel{number}/x", f"/link/n{number}"),
                *(f"/absolute/n{number}", f"${{FROM_BASE}}{number}", f"/none/../n{number}"),
                "/real/deep" if slash else f"/n{number}",
            )
        )
    )
    if draw(st.integers(0, 5)) == 0 and any(" " in each for each in present):
        spaced = next(each for each in present if " " in each)
        return f'{name} {flags}["{spaced}", "{place}/"]'
    return f"{name} {flags}{source} {place}{'/' if slash else ''}"


def _wild(path: str) -> str:
    """A pattern that matches at least this."""
    head, slash, name = path.rpartition("/")
    return f"{head}{slash}" + (
        f"?{name[1:]}" if len(name) == 1 else f"*{name[1:]}" if "." in name else f"[a-z]{name[1:]}*"
    )


VALUES = (
    "plain",
    '"two words"',
    "'$A'",
    '"$A b"',
    "$A$B",
    "${A}x",
    "${B:-none}",
    "${A:+set}",
    "a\\ b",
    '"q\\"q"',
    "\\$A",
    "",
)


@st.composite
def variables(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from("ABC"))
    value = draw(st.sampled_from(VALUES))
    kind = draw(st.sampled_from(("ENV", "ENV", "ARG", "LABEL", "old", "two")))
    if kind == "old":
        return f"ENV {key} some $B value"
    if kind == "two":
        return f"ENV {key}={value} {draw(st.sampled_from('ABC'))}={draw(st.sampled_from(VALUES))}"
    if kind == "ARG":  # buildah lets an ENV of the same name win
        return f"ARG R{key}={value}"
    return f"{kind} {key}={value}"


@st.composite
def others(draw: st.DrawFn) -> str:
    return draw(
        st.sampled_from(
            (
                "WORKDIR /made", "WORKDIR below", "WORKDIR ../up", "WORKDIR /link", "WORKDIR /real/deep/x",
                "WORKDIR $A", "EXPOSE 80", "EXPOSE 53/udp 90", 'CMD ["a", "b"]', "CMD a $A b", 'ENTRYPOINT ["e"]',
                "STOPSIGNAL SIGINT",
                "VOLUME /real", 'VOLUME ["/real/deep"]', "MAINTAINER Me", "ONBUILD COPY . /x", "HEALTHCHECK NONE",
                "HEALTHCHECK --interval=5s CMD true", "LABEL a=b c=d", "USER user", "USER 0", "EXPOSE ${A:-8080}",
            )
        )
    )  # fmt: skip


# ------------------------------------------------------------------ the comparison


@dataclass(frozen=True)
class Engines:
    limpet: Runner
    buildah: corpus.Buildah
    place: Path


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    if shutil.which("buildah") is None:
        pytest.skip("needs Debian's buildah")
    archive = bases.make(tmp_path_factory.mktemp("bases"))
    limpet = runner(tmp_path_factory.mktemp("limpet"))
    limpet("load", "-i", archive)
    place = Path(tempfile.mkdtemp(prefix="random-", dir="/var/tmp"))  # a run root of over 50 letters is refused
    buildah = corpus.Buildah(place, archive)
    yield Engines(limpet, buildah, place)
    buildah.run("rmi", "-a", "-f")
    shutil.rmtree(place)


@settings(
    max_examples=EXAMPLES or 24,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate] if not EXAMPLES else [Phase.generate, Phase.shrink],  # to shrink takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans())
def test_what_chance_makes(plan: Plan, engines: Engines) -> None:
    note(plan.text)
    with tempfile.TemporaryDirectory(dir=engines.place) as place:
        event(check(plan, engines, Path(place)))


def check(plan: Plan, engines: Engines, place: Path) -> str:
    """What became of it; asserts that it is the same for both."""
    case = lay_out(plan, place)
    mine = engines.limpet("build", "-q", "-t", "random", "-f", case.dockerfile, case.context, check=False)
    code, errors = engines.buildah.build(case, place / "theirs")
    if mine.returncode == 0 and "no items matching glob" in errors:
        return "a wildcard of which .dockerignore leaves nothing, which only buildah refuses"
    assert (mine.returncode == 0) == (code == 0), f"ours: {mine.stderr}\nbuildah's: {errors}"
    if code != 0:
        return "refused by both"
    engines.limpet("save", "--format", "oci-dir", "-o", place / "ours", "random")
    lines = corpus.compare(*(corpus.everything(read(place / each)) for each in ("ours", "theirs")))
    rest = corpus.unexpected(lines, "buildah", "")
    assert not rest, "\n".join(["ours | buildah's", *rest])
    return "built by both"


def lay_out(plan: Plan, place: Path) -> corpus.Case:
    context = place / "context"
    for name in ("d/d", "e"):
        (context / name).mkdir(parents=True)
    for name, (content, mode) in plan.files.items():
        (context / name).write_text(content)
        (context / name).chmod(mode)
    for name, goal in plan.links.items():
        (context / name).symlink_to(goal)
    for name, goal in plan.hard.items():
        (context / name).hardlink_to(context / goal)
    for directory in ("", "d", "d/d", "e"):
        (context / directory).chmod(0o755)
    with tarfile.open(context / "t.tar", "w") as tar:
        for name, kind in (("inner", tarfile.DIRTYPE), ("inner/f", tarfile.REGTYPE), ("top", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, 0o751, 5, 6
            tar.addfile(member)
    if plan.ignore:
        (context / ".dockerignore").write_text("\n".join(plan.ignore) + "\n")
    (place / "Dockerfile").write_text(plan.text)
    return corpus.Case("random", context, place / "Dockerfile", ())
