from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from limpet.errors import Corrupt, NotFound
from limpet.store import blobs
from limpet.store.blobs import BlobWriter

if TYPE_CHECKING:
    from limpet.store.store import Store

DATA = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def _files(store: Store) -> list[str]:
    return sorted(os.listdir(f"{store.root}/tmp") + os.listdir(f"{store.root}/blobs/sha256"))


def test_put_and_read(store: Store) -> None:
    assert blobs.put(store, DATA) == DIGEST
    assert blobs.put(store, DATA) == DIGEST
    assert blobs.read(store, DIGEST, 100) == DATA
    assert blobs.exists(store, DIGEST)
    assert store.db.rows("SELECT * FROM blob") == [(DIGEST, len(DATA), None)]
    assert _files(store) == [DIGEST[7:]]


def test_pieces_are_visible_only_when_whole(store: Store) -> None:
    with BlobWriter(store) as blob:
        blob.write(DATA[:4])
        assert os.listdir(f"{store.root}/blobs/sha256") == []
        blob.write(DATA[4:])
        assert blob.commit(DIGEST, len(DATA)) == DIGEST
    assert store.db.rows("SELECT * FROM blob") == [(DIGEST, len(DATA), blobs.boot_id())]


@pytest.mark.parametrize(("expected", "size"), [("sha256:" + "0" * 64, None), (DIGEST, 9)])
def test_other_bytes_leave_nothing(store: Store, expected: str, size: int | None) -> None:
    with BlobWriter(store) as blob:
        blob.write(DATA)
        with pytest.raises(Corrupt, match=expected):
            blob.commit(expected, size)
    assert _files(store) == []
    assert store.db.rows("SELECT * FROM blob") == []


def test_sha512(store: Store) -> None:
    with BlobWriter(store, "sha512") as blob:
        blob.write(DATA)
        digest = blob.commit()
    assert digest == f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    assert blobs.read(store, digest, 100) == DATA


def test_damage_is_found(store: Store) -> None:
    blobs.put(store, DATA)
    with open(store.blob_path(DIGEST), "r+b") as file:
        file.write(b"S")
    with pytest.raises(Corrupt, match="damaged"):
        blobs.read(store, DIGEST, 100)
    with open(store.blob_path(DIGEST), "ab") as file:
        file.write(b"more")
    assert not blobs.exists(store, DIGEST)
    os.unlink(store.blob_path(DIGEST))
    with pytest.raises(NotFound):
        blobs.read(store, DIGEST, 100)
    assert not blobs.exists(store, DIGEST)
    blobs.put(store, DATA)  # the row alone does not count
    assert blobs.read(store, DIGEST, 100) == DATA


def test_reading_has_a_limit(store: Store) -> None:
    blobs.put(store, DATA)
    with pytest.raises(Corrupt, match="more than 5"):
        blobs.read(store, DIGEST, 5)


def test_an_unsynced_copy_makes_the_blob_unsure_again(store: Store) -> None:
    blobs.put(store, DATA)
    with BlobWriter(store) as blob:
        blob.write(DATA)
        blob.commit()
    assert store.db.row("SELECT boot FROM blob")[0] == blobs.boot_id()
    blobs.put(store, DATA)
    assert store.db.row("SELECT boot FROM blob")[0] is None
