"""The process that makes a container's network, beside its monitor: `main` is all of it.

It loads its libraries while the monitor mounts the container's root, and waits for a line on standard input: the ports
to be published, when the container's own files are written. Its answer is one line of JSON: {"ports"} or {"error",
"hint"}. The network namespace is descriptor 3. Killed half-way it leaves at most what the next `upkeep.settle` takes.
"""

from __future__ import annotations

import os
import sys
import time

from limpet import jsontext
from limpet.errors import LimpetError, reason
from limpet.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMESPACE = 3
_PATIENCE = 1.0  # seconds


def main(root: str, run: str, verb: str, container_id: str) -> None:
    """`verb`: connect; or release, which waits until the monitor has ended and closed our standard input with that."""
    answer: dict[str, Any] = {}
    # A monitor that slept has descriptors that are inherited, its lock above all.
    process.close_range(NAMESPACE + 1 if verb == "connect" else NAMESPACE, 0xFFFFFFFF)
    try:
        from limpet.network.private import upkeep
        from limpet.store.store import Store

        store = Store(root, run)
        if verb == "connect":
            order = _order()
            if order is None:
                return  # the monitor has no use for it any more
            answer["ports"] = upkeep.connect(store, container_id, NAMESPACE, order)
        else:
            os.read(0, 1)
            deadline = time.monotonic() + _PATIENCE
            while upkeep.alive(store, container_id) and time.monotonic() < deadline:
                time.sleep(0.002)  # the dying monitor may let go of this pipe before its lock
            if os.path.exists(f"{root}/state.db"):
                upkeep.settle(store)
    except LimpetError as e:
        answer = {"error": e.message, "hint": e.hint}
    except Exception as e:
        answer = {"error": reason(e) if isinstance(e, OSError) else f"{type(e).__name__}: {e}", "hint": ""}
    os.write(1, jsontext.dumps(answer).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)


def _order() -> list[list[Any]] | None:
    text = b""
    while not text.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return None
        text += chunk
    ports: list[list[Any]] = jsontext.loads(text)
    return ports
