"""`tests/dockerfiles`: a Dockerfile in the manner of each year, built as others build it, and twice the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build import bases, corpus
from tests.build.contents import File, read
from tests.conftest import Runner, runner


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.make(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def base(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, File]:
    return bases.files(archive, tmp_path_factory.mktemp("base") / "dir")


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(corpus.RECORDED.read_text())["cases"]
    return found


@pytest.fixture(scope="session")
def here(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with the bases."""
    engine = runner(tmp_path_factory.mktemp("here"))
    engine("load", "-i", archive)
    return engine


@pytest.fixture(scope="session")
def elsewhere(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Another one, with the driver of kernels that can't mount a layer."""
    engine = runner(tmp_path_factory.mktemp("elsewhere"))
    engine.environment |= {"LIMPET_DRIVER": "dir"}
    engine("load", "-i", archive)
    return engine


@pytest.fixture(scope="session")
def buildah(archive: Path) -> Iterator[corpus.Buildah]:
    if shutil.which("buildah") is None:
        pytest.skip("needs Debian's buildah")
    place = Path(tempfile.mkdtemp(prefix="corpus-", dir="/var/tmp"))  # a run root of over 50 letters is refused
    engine = corpus.Buildah(place, archive)
    yield engine
    engine.run("rmi", "-a", "-f")
    shutil.rmtree(place)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in corpus.QUICK else pytest.mark.slow) for each in corpus.cases()]
)
def test_each_is_what_others_make_of_it_and_the_same_elsewhere(
    name: str, here: Runner, elsewhere: Runner, base: dict[str, File], recorded: dict[str, Any], tmp_path: Path
) -> None:
    case = corpus.lay_out(name, tmp_path / "one")
    made = here("build", *case.options, "-f", case.dockerfile, "-t", f"{name}:made", case.context)
    here("save", "--format", "oci-dir", "-o", tmp_path / "saved", f"{name}:made")
    ours = corpus.reduced(read(tmp_path / "saved"), base)
    used: set[corpus.Difference] = set()
    for peer, theirs in recorded[name].items():
        if (name, peer) in corpus.CANNOT:
            assert "failed" in theirs
            continue
        assert corpus.unexpected(corpus.compare(ours, theirs), peer, name, used) == [], f"ours | {peer}'s"
    assert used.issuperset(each for each in corpus.DIFFERENCES if name in each.cases), "a difference that is none"

    again = corpus.lay_out(name, tmp_path / "another place", mtime=1_234_567_890)
    path = again.dockerfile
    built = elsewhere("build", *again.options, "-f", path, again.context, umask=0o077, cwd=again.context)
    assert built.stdout == made.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.LIVE)
def test_buildah_makes_the_same_of_it(
    name: str, here: Runner, buildah: corpus.Buildah, base: dict[str, File], tmp_path: Path
) -> None:
    case = corpus.lay_out(name, tmp_path)
    here("build", *case.options, "-f", case.dockerfile, "-t", f"{name}:live", case.context)
    here("save", "--format", "oci-dir", "-o", tmp_path / "saved", f"{name}:live")
    code, errors = buildah.build(case, tmp_path / "theirs")
    assert code == 0, errors
    ours, theirs = (corpus.reduced(read(tmp_path / each), base) for each in ("saved", "theirs"))
    assert corpus.unexpected(corpus.compare(ours, theirs), "buildah", name) == [], "ours | buildah's"


@pytest.mark.slow
def test_a_real_debian(
    here: Runner, elsewhere: Runner, buildah: corpus.Buildah, debian_tar: Path, tmp_path: Path
) -> None:
    """Its package tools write what they write under any engine, and the same twice."""
    case = corpus.lay_out("debian-12", tmp_path / "one")
    here("import", debian_tar, "debian:12")  # has the time of the import
    here("save", "-o", tmp_path / "debian.tar", "debian:12")
    elsewhere("load", "-i", tmp_path / "debian.tar")
    made = here("build", "-q", "-t", "debian:made", "-f", case.dockerfile, case.context)
    again = corpus.lay_out("debian-12", tmp_path / "two", mtime=1_234_567_890)
    assert elsewhere("build", "-q", "-f", again.dockerfile, again.context, umask=0o077).stdout == made.stdout
    here("save", "--format", "oci-dir", "-o", tmp_path / "saved", "debian:made")
    buildah.take(debian_tar, "debian:12")
    code, errors = buildah.build(case, tmp_path / "theirs")
    assert code == 0, errors
    ours, theirs = (corpus.everything(read(tmp_path / each)) for each in ("saved", "theirs"))
    assert len(ours["files"]) > 3000
    assert corpus.unexpected(corpus.compare(ours, theirs), "buildah", case.name) == [], "ours | buildah's"


def test_every_case_is_recorded_and_has_a_peer(recorded: dict[str, Any]) -> None:
    names = corpus.cases()
    assert len(names) >= 60
    assert {each[:4] for each in names} == {str(year) for year in range(2013, 2027)}
    assert sorted(recorded) == names, "run: python -m tests.build.record"
    for name in names:
        assert not all((name, peer) in corpus.CANNOT for peer in recorded[name]), name


def test_the_differences_stand_in_the_documentation() -> None:
    page = Path(__file__).resolve().parent.parent.parent / "docs/dockerfile-compat.md"
    assert corpus.table() in page.read_text(), f"the table is now\n{corpus.table()}"
    known = set(corpus.cases())
    assert known.issuperset(name for each in corpus.DIFFERENCES for name in each.cases)
    assert known.issuperset(name for name, _ in corpus.CANNOT)
