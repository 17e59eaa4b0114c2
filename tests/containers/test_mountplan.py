"""Mounts as users write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.containers.mounts import mountplan, volumes
from limpet.containers.options import Options
from limpet.errors import Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from limpet.containers.mounts.mountplan import Mount
    from limpet.store.store import Store


def one(store: Store, **options: object) -> Mount:
    (mount,) = mountplan.plan(store, Options(**options), [])
    return mount


def test_bind_of_an_absolute_path(store: Store, tmp_path: Path) -> None:
    mount = one(store, volumes=[f"{tmp_path}:/data:ro,rslave"])
    assert (mount.kind, mount.source, mount.target) == ("bind", str(tmp_path), "/data")
    assert mount.options == ["rbind", "ro", "rslave"]
    assert mount.read_only


def test_bind_of_a_relative_path(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    assert one(store, volumes=["./src:/src"]).source == f"{tmp_path}/src"


def test_a_missing_source_is_an_error_that_suggests(store: Store, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(NotFound) as caught:
        one(store, volumes=[f"{tmp_path}/confgi:/c"])
    assert f"bind source {tmp_path}/confgi does not exist" in caught.value.message
    assert f"did you mean {tmp_path}/config?" in caught.value.hint
    assert "--mkdir" in caught.value.hint
    assert not (tmp_path / "confgi").exists()


def test_mkdir_makes_it(store: Store, tmp_path: Path) -> None:
    one(store, volumes=[f"{tmp_path}/new/deep:/c"], mkdir=True)
    assert (tmp_path / "new/deep").is_dir()


def test_named_volume(store: Store) -> None:
    mount = one(store, volumes=["data:/var/lib/data:nocopy"])
    assert (mount.kind, mount.name, mount.source) == ("volume", "data", volumes.data_path(store, "data"))
    assert not mount.copy
    assert not mount.anonymous


def test_anonymous_volumes_of_the_image_and_the_user(store: Store) -> None:
    planned = mountplan.plan(store, Options(volumes=["/a"]), ["/a", "/b/c/"])
    assert [(m.target, m.anonymous) for m in planned] == [("/a", True), ("/b/c", True)]
    assert len({m.name for m in planned}) == 2


def test_what_the_user_mounts_wins_over_the_image(store: Store, tmp_path: Path) -> None:
    (mount,) = mountplan.plan(store, Options(volumes=[f"{tmp_path}:/data"]), ["/data"])
    assert mount.kind == "bind"


def test_parents_are_mounted_before_children(store: Store) -> None:
    planned = mountplan.plan(store, Options(tmpfs=["/a/b/c", "/a"], volumes=["v1:/a/b"]), [])
    assert [m.target for m in planned] == ["/a", "/a/b", "/a/b/c"]


def test_mount_syntax(store: Store, tmp_path: Path) -> None:
    bind = one(store, mounts=[f"type=bind,src={tmp_path},dst=/d,readonly,bind-propagation=rshared"])
    assert (bind.kind, bind.options) == ("bind", ["rbind", "ro", "rshared"])
    volume = one(store, mounts=["source=v1,target=/d,volume-nocopy"])
    assert (volume.kind, volume.name, volume.copy) == ("volume", "v1", False)
    tmpfs = one(store, mounts=["type=tmpfs,target=/d,tmpfs-size=1m,tmpfs-mode=700"])
    assert tmpfs.options == ["nosuid", "nodev", "noexec", "size=1048576", "mode=700"]


def test_tmpfs(store: Store) -> None:
    mount = one(store, tmpfs=["/run:size=64k,exec"])
    assert mount.options == ["noexec", "nosuid", "nodev", "size=64k", "exec"]
    assert one(store, tmpfs=["/run:size=50%,mode=1777,nr_inodes=1k,uid=7,huge=never"]).options[3:] == [
        "size=50%", "mode=1777", "nr_inodes=1k", "uid=7", "huge=never"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volumes": ["a:b"]}, "must be absolute"),
        ({"volumes": ["v1:/"]}, "can't be '/'"),
        ({"volumes": ["v1:/../"]}, "can't be '/'"),
        ({"volumes": ["v1:/a:wrong"]}, "unknown mode 'wrong'"),
        ({"volumes": ["v1:/a:ro:x"]}, "invalid volume"),
        ({"volumes": ["::"]}, "invalid volume"),
        ({"volumes": ["x:/a"]}, "invalid volume name 'x'"),
        ({"volumes": ["v1:/a", "v2:/a/"]}, "duplicate mount point: /a"),
        ({"mounts": ["type=bind,target=/a"]}, "source is required"),
        ({"mounts": ["type=bind,source=rel,target=/a"]}, "must be a path"),
        ({"mounts": ["type=nfs,target=/a"]}, "unknown type 'nfs'"),
        ({"mounts": ["type=volume"]}, "target is required"),
        ({"mounts": ["target=/a,frob=1"]}, "unexpected 'frob=1'"),
        ({"mounts": ["target=/a,readonly=maybe"]}, "neither true nor false"),
        ({"mounts": ["source=v1,target=/a,volume-subpath=../x"]}, "beneath the volume"),
        ({"tmpfs": ["/a:size"]}, "invalid tmpfs option 'size'"),
        ({"tmpfs": ["/a:context=x"]}, "invalid tmpfs option"),
        ({"tmpfs": ["/a:size=1x"]}, "invalid tmpfs option 'size=1x'"),
        ({"tmpfs": ["/a:size=1kk"]}, "invalid tmpfs option 'size=1kk'"),
        ({"tmpfs": ["/a:mode=9"]}, "invalid tmpfs option 'mode=9'"),
        ({"mounts": ["type=tmpfs,target=/a,tmpfs-mode=rwx"]}, "invalid tmpfs option 'mode=rwx'"),
    ],
)
def test_wrong_mounts(store: Store, options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        mountplan.plan(store, Options(**options), [])
    assert message in caught.value.message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab:/=,.rotype", max_size=25))
def test_any_text_is_a_plan_or_an_error(store: Store, text: str) -> None:
    for field in ("volumes", "mounts", "tmpfs"):
        try:
            for mount in mountplan.plan(store, Options(**{field: [text]}), []):
                assert mount.target.startswith("/")
                assert ".." not in mount.target.split("/")
        except LimpetError:
            pass


def test_plans_survive_their_json(store: Store, tmp_path: Path) -> None:
    planned = mountplan.plan(store, Options(volumes=[f"{tmp_path}:/a:ro", "/b"], tmpfs=["/c"]), [])
    directory = tmp_path / "store/containers/x"
    directory.mkdir()
    (directory / "mounts.json").write_text(mountplan.save(planned))
    again = mountplan.load(store, "x")
    assert [[getattr(m, f) for f in m.__slots__] for m in again] == [
        [getattr(m, f) for f in m.__slots__] for m in planned
    ]
    assert mountplan.load(store, "y") == []
