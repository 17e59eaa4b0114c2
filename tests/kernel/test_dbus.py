"""D-Bus messages: what is written is read again, nonsense is an error, and a real bus understands."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import LimpetError
from limpet.kernel import dbus, systemd

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
PLAIN: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("y", st.integers(0, 255)),
    ("b", st.integers(0, 1)),
    ("i", st.integers(-(2**31), 2**31 - 1)),
    ("u", st.integers(0, 2**32 - 1)),
    ("x", st.integers(-(2**63), 2**63 - 1)),
    ("t", st.integers(0, 2**64 - 1)),
    ("s", TEXT),
    ("g", st.sampled_from(["", "s", "a(sv)"])),
]


def typed() -> st.SearchStrategy[tuple[str, Any]]:
    """A complete type and a value of it."""
    plain = st.one_of([strategy.map(lambda value, kind=kind: (kind, value)) for kind, strategy in PLAIN])
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            inner.map(lambda item: ("v", item)),
            inner.flatmap(lambda item: st.integers(0, 3).map(lambda n: (f"a{item[0]}", [item[1]] * n))),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda items: (f"({''.join(kind for kind, _ in items)})", tuple(value for _, value in items))
            ),
        ),
        max_leaves=8,
    )


@given(st.lists(typed(), max_size=4))
def test_what_is_written_is_read_again(items: list[tuple[str, Any]]) -> None:
    signature, values = "".join(kind for kind, _ in items), [value for _, value in items]
    assert dbus.types(signature) == [kind for kind, _ in items]
    data = bytearray(dbus.encode(7, {dbus.PATH: "/a/b", dbus.MEMBER: "Do"}, signature, values))
    assert dbus.decode(data[:-1]) is None or signature == ""
    data += b"more"
    message = dbus.decode(data)
    assert message is not None
    assert (message.kind, message.fields[dbus.PATH], message.fields[dbus.MEMBER]) == (dbus.CALL, "/a/b", "Do")
    assert message.values == values
    assert data == b"more"


@given(st.data())
def test_nonsense_is_an_error_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(dbus.encode(1, {dbus.MEMBER: "JobRemoved"}, "uossa(sv)", [1, "/a", "b", "c", [("d", ("u", 5))]]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        dbus.decode(good)
    except ValueError:
        pass


def test_a_known_message() -> None:
    """As `busctl capture` shows one: alignment and padding are those of the specification."""
    data = dbus.encode(2, {dbus.PATH: "/o", dbus.MEMBER: "Get"}, "su", ["ab", 9])
    assert data[:16] == b"l\1\0\1" + struct.pack("<3I", 12, 2, 40)
    assert data[16:32] == b"\1\1o\0" + b"\2\0\0\0/o\0" + bytes(5)
    assert data[-12:] == b"\2\0\0\0ab\0\0\t\0\0\0"


@pytest.fixture
def bus(tmp_path: Path) -> Any:
    """A directory as XDG_RUNTIME_DIR with a bus of its own, on which nobody but us is."""
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("needs Debian's dbus-daemon")
    address = f"unix:path={tmp_path}/bus"
    command = [program, "--session", "--nofork", "--nopidfile", "--print-address=1", f"--address={address}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield tmp_path
        process.terminate()


def test_a_real_bus_understands(bus: Path) -> None:
    connection = dbus.Connection(f"{bus}/bus", time.monotonic() + 10)
    name = "org.freedesktop.DBus"
    fields = {dbus.PATH: "/org/freedesktop/DBus", dbus.INTERFACE: name, dbus.DESTINATION: name}
    connection.call({**fields, dbus.MEMBER: "Hello"})
    number = connection.call({**fields, dbus.MEMBER: "NameHasOwner"}, "s", [name])
    wrong = connection.call({**fields, dbus.MEMBER: "NameHasOwner"}, "u", [1])
    connection.flush()
    answers = {}
    while wrong not in answers:
        message = connection.receive()
        answers[message.fields.get(dbus.REPLY_TO)] = message
    connection.close()
    assert answers[number].values == [1]
    assert answers[wrong].kind == dbus.ERROR
    assert answers[wrong].fields[dbus.ERROR_NAME] == "org.freedesktop.DBus.Error.InvalidArgs"


def test_a_bus_without_systemd(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bus))
    with pytest.raises(LimpetError) as caught:
        systemd.Scope("limpet-x.scope", 1, "x", 10, user=True).wait()
    assert caught.value.message.startswith("systemd refuses limpet-x.scope: ")
    assert "org.freedesktop.systemd1" in caught.value.message


def test_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(LimpetError) as caught:
        systemd.set_properties("limpet-x.scope", [("CPUWeight", ("t", 5))], user=True)
    assert caught.value.message == "limpet-x.scope: systemd can't be asked for it: No such file or directory"


def test_slices_are_nested_by_their_names() -> None:
    assert systemd.slice_path("limpet.slice") == "limpet.slice"
    assert systemd.slice_path("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
