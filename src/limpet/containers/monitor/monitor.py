"""The process beside each running container: holds its log, its terminal and its clients, reaps it, restarts it.

It is forked from whatever started the container, holds an flock on `<run>/<id>/lock` for its whole life (who sees the
lock free knows that no container runs), and never opens the database: SQLite does not survive a fork. Of a container
with `--rm` the first client removes what is left, or, when that one is gone, a fresh process (`removal`).
Here is how that process begins and how it fails; `monitoring` is what it does.
"""

from __future__ import annotations

import os

from limpet.containers.execution.outcome import pack
from limpet.containers.monitor import hibernation, title
from limpet.containers.monitor.monitoring import TELLING, Monitor
from limpet.errors import reason
from limpet.kernel import process, signalfd
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import NoReturn

    from limpet.containers.state import Container
    from limpet.store.store import Store
else:
    import _socket as socket


def main(
    store: Store,
    container: Container,
    size: tuple[int, int] | None,
    descriptors: list[int],
    root: int = -1,
    unwritten: Sequence[str] = (),
) -> NoReturn:
    """The whole life of the monitor, in a process of its own (see `early`). `size`: of the terminal, rows and columns.

    `descriptors`: the lock; a pipe for the outcome of the start; the first client's connection, if there is one.
    `root`: the container's mount, if it was made already. `unwritten`: more environment, see `start.launch`.
    """
    lock, outcome, *rest = descriptors
    first = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, rest[0]) if rest else None
    code = 1
    try:
        title.set_title(f"limpet monitor {container.name}")
        process.set_name(b"limpet-monitor")
        monitor = Monitor(store, container, lock, first, told=signalfd.create(TELLING))
        monitor.unwritten = unwritten
        monitor.enter()
        code = monitor.run(size, outcome, root)
    except BaseException as e:
        _report_crash(store, container, outcome, e)
    finally:
        os._exit(code)


def wake(program: int, memory: int) -> NoReturn:
    """Goes on where `Monitor._sleep` stopped: the first call of the process that `hibernation` executes."""
    from limpet.containers.state import Container
    from limpet.store.store import Store

    hibernation.wait_for_newer(program, memory)
    saved = hibernation.state(program, memory)
    container = Container.from_list(saved["container"])
    store = Store(saved["root"], saved["run"])
    code = 1
    try:
        title.set_title(f"limpet monitor {container.name}")
        process.set_name(b"limpet-monitor")
        told = saved["told"] if "told" in saved else signalfd.create(TELLING)  # an older limpet fell asleep
        monitor = Monitor(store, container, saved["lock"], None, saved["listener"], told=told)
        monitor.restore(saved)
        code = monitor.run(None, -1, -1)
    except BaseException as e:
        _report_crash(store, container, -1, e)
    finally:
        os._exit(code)


def _report_crash(store: Store, container: Container, outcome: int, error: BaseException) -> None:
    """A fault of ours: the container dies with its monitor; what happened is told to the starter or kept in a file."""
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        what = reason(error) if isinstance(error, OSError) else repr(error)
        os.write(outcome, pack(128, f"container {container.name}: its monitor failed: {what}"))
    except OSError:
        pass
    try:
        files.write_file(f"{store.container_path(container.id)}/monitor-error", text.encode(), durable=False)
    except OSError:
        pass
