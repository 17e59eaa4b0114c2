"""The list of names that all containers of the host's network share."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.network import names
from limpet.network.private import hosts

Place = tuple[str, str]


def container(root: Path, number: int) -> tuple[str, Path, list[str]]:
    """A container's address, its /etc/hosts and its names."""
    id_ = f"{number:064x}"[::-1]
    directory = root / "containers" / id_
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "hosts"
    if not path.exists():
        path.write_text("127.0.0.1\tlocalhost\n")
    return f"127.64.0.{number}", path, [f"name{number}", id_[:12]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "containers").mkdir()
    return str(tmp_path), str(tmp_path)


def test_all_hear_of_all(place: Place, tmp_path: Path) -> None:
    a, b = container(tmp_path, 1), container(tmp_path, 2)
    inode = a[1].stat().st_ino
    names.join(*place, a[0], a[2])
    names.join(*place, b[0], [*b[2], "alias"])
    for path in (a[1], b[1]):
        text = path.read_text()
        assert text.startswith("127.0.0.1\tlocalhost\n")
        assert f"127.64.0.1\t{' '.join(a[2])}\n" in text
        assert f"127.64.0.2\t{' '.join(b[2])} alias\n" in text
        assert "127.0.0.1\thost.limpet.internal host.docker.internal\n" in text
    names.leave(*place, a[0])
    assert "name1" not in b[1].read_text()
    assert a[1].stat().st_ino == inode


def test_a_name_can_not_be_two_lines(place: Place, tmp_path: Path) -> None:
    a = container(tmp_path, 1)
    names.join(*place, a[0], [*a[2], "x\v192.0.2.1", "y\u2028z", "#", "good-1.x"])
    assert names.lines(place[0])[1:] == [f"{a[0]}\t{' '.join(a[2])} good-1.x"]


def test_what_was_killed_keeps_its_name_from_nobody(place: Place, tmp_path: Path) -> None:
    a, b = container(tmp_path, 1), container(tmp_path, 2)
    names.join(*place, a[0], a[2])
    names.join(*place, b[0], ["name1", b[2][1]])
    assert [line for line in names.lines(place[0]) if "name1" in line] == [f"127.64.0.2\tname1 {b[2][1]}"]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 30)), max_size=40))
def test_no_line_moves_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("names")
    (root / "containers").mkdir()
    where: dict[int, int] = {}
    for comes, number, length in steps:
        own4 = f"127.64.0.{number}"
        if comes and number not in where:
            names.join(str(root), str(root), own4, [f"n{number}" + "x" * length, f"{number:012x}"])
        elif not comes:
            names.leave(str(root), str(root), own4)
        text = "\n".join(names.lines(str(root))) + "\n"
        found = {n: text.index(f"\n127.64.0.{n}\t") for n in range(1, 7) if f"\n127.64.0.{n}\t" in text}
        expected = set(where) | {number} if comes else set(where) - {number}
        assert set(found) == expected
        assert all(found[n] == at for n, at in where.items() if n in found)
        where = found
        assert text.startswith(names.FIRST)


def test_who_reads_meanwhile_finds_who_is_there(place: Place, tmp_path: Path) -> None:
    """In pieces of 512 bytes, as a C library might, while others come and go."""
    others = [container(tmp_path, number) for number in range(1, 40)]
    stays = container(tmp_path, 200)
    for own4, _, own in others:
        names.join(*place, own4, own)
    names.join(*place, stays[0], stays[2])
    missed, reads, done = 0, 0, threading.Event()

    def churn() -> None:
        for turn in range(6):
            for own4, _, own in others[turn::3]:
                names.leave(*place, own4)
                names.join(*place, own4, [own[0] + "x" * (turn % 4), own[1]])
        done.set()

    thread = threading.Thread(target=churn)
    thread.start()
    while not done.is_set():
        fd = os.open(stays[1], os.O_RDONLY)
        text = b""
        while piece := os.read(fd, 512):
            text += piece
        os.close(fd)
        reads += 1
        missed += b"\n127.64.0.200\tname200 " not in text
    thread.join()
    assert reads > 20
    assert missed == 0


def test_the_hosts_own_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "etc-hosts"
    file.write_text("127.0.0.1\tlocalhost\n192.0.2.1 mine")
    a, b = container(tmp_path, 1), container(tmp_path, 2)
    names.join(*place, a[0], a[2])
    names.install(*place, str(file))
    assert file.read_text().splitlines()[:2] == ["127.0.0.1\tlocalhost", "192.0.2.1 mine"]
    assert "127.64.0.1\tname1.limpet\n" in file.read_text()
    names.join(*place, b[0], b[2])
    assert "127.64.0.2\tname2.limpet\n" in file.read_text()
    assert "host.limpet.internal" not in file.read_text()
    assert names.remove(place[1]) == str(file)
    assert file.read_text() == "127.0.0.1\tlocalhost\n192.0.2.1 mine\n"
    names.leave(*place, b[0])
    assert hosts.BEGIN.decode() not in file.read_text()
    assert names.remove(place[1]) == ""
