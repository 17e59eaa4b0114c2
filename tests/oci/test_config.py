from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.oci import config
from limpet.oci.platform import Platform

DIFF = "sha256:" + "b" * 64
WHOLE: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"a": "é"}, "ExposedPorts": {"80/tcp": {}}},
    "rootfs": {"type": "layers", "diff_ids": [DIFF]},
    "history": [{"created_by": "x"}],
    "x-unknown": {"kept": True},
}


def _parse(value: Any) -> config.ImageConfig:
    return config.parse(json.dumps(value).encode())


def test_a_config() -> None:
    found = _parse(WHOLE)
    assert found.platform == Platform("linux", "amd64")
    assert found.diff_ids == (DIFF,)
    assert found.config["Cmd"] == ["sh"]
    assert found.raw["x-unknown"] == {"kept": True}
    assert config.parse(found.to_json()) == found


def test_what_may_be_missing() -> None:
    found = _parse({"config": None, "rootfs": None, "history": None})
    assert (found.diff_ids, found.history, found.config) == ((), (), {})


@pytest.mark.parametrize(
    "change",
    [
        {"rootfs": []},
        {"rootfs": {"type": "tarball", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["../../etc"]}},
        {"rootfs": {"type": "layers", "diff_ids": [1]}},
        {"rootfs": {"type": "layers", "diff_ids": [DIFF] * 501}},
        {"history": [1]},
        {"os": 5},
        {"config": []},
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Cmd": "sh"}},
        {"config": {"User": 0}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Volumes": []}},
    ],
)
def test_the_wrong_kind_of_a_field_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"config|layers|digest|platform"):
        _parse({**WHOLE, **change})


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe{\0}\0", b"[" * 100_000, b" " * (config.MAX_BYTES + 1)])
def test_what_is_no_config(data: bytes) -> None:
    with pytest.raises(Invalid):
        config.parse(data)


@given(st.dictionaries(st.sampled_from([*WHOLE]), st.none() | st.integers() | st.lists(st.text(max_size=3))))
def test_nothing_else_is_raised(change: dict[str, Any]) -> None:
    try:
        _parse({**WHOLE, **change})
    except Invalid:
        pass
