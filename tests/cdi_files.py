"""Files of /etc/cdi for a test, which are gone afterwards; one test at a time has them."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def directory(lock: str = "/tmp/limpet-test-cdi.lock") -> Iterator[Path]:
    """Where to write; names begin with `limpet-test`."""
    place = Path("/etc/cdi")
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        made = not place.exists()
        place.mkdir(exist_ok=True)
        try:
            yield place
        finally:
            for path in place.glob("limpet-test*"):
                path.unlink()
            if made:
                place.rmdir()
    finally:
        os.close(held)
