"""The log of a container, as its options want it: a driver, here or in a process of its own, perhaps with a copy."""

from __future__ import annotations

from limpet import jsontext
from limpet.containers.logging.logdrivers import choice
from limpet.errors import Invalid, Refused, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from limpet.containers.state import Container
    from limpet.store.store import Store

    class Driver(Protocol):
        @property
        def dropped(self) -> int: ...
        def write(self, stream: str, data: bytes, moment: int = 0) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...

    class Log(Driver, Protocol):
        """As the monitor has it. While it is `blocked` nothing may be written; `descriptor` says when to `retry`."""

        @property
        def blocked(self) -> bool: ...
        @property
        def descriptor(self) -> int: ...
        def retry(self, seconds: float = 0.0) -> None: ...
        def saved(self) -> list[Any] | None: ...
        def restore(self, saved: list[Any]) -> None: ...


LOCAL = "log"
REMOTE = ("syslog", "journald")


def text_name(container: Container) -> str:
    """Of a text log, in the container's directory (k8s-file: as Podman's)."""
    return "ctr.log" if container.options.log_driver == "k8s-file" else f"{container.id}-json.log"


def open_log(store: Store, container: Container) -> Log:
    """Nothing is opened yet: the first line does that."""
    directory, options = store.container_path(container.id), container.options
    if options.log_driver == "none":
        return Nowhere()
    remote, drop = options.log_driver in REMOTE, options.log_opts.get("mode") == "non-blocking"
    if not remote and not drop:
        plain: Log = _file(directory, container)
        return plain
    from limpet.containers.logging.logdrivers.writer import WriterProcess

    size = choice.buffer_size(options.log_opts)
    if not remote:
        return WriterProcess(lambda: _file(directory, container), size, drop=drop)
    log = WriterProcess(lambda: _sender(directory, container), size, drop=drop)
    copy = choice.cache(options.log_opts) if options.log_driver == "syslog" else None
    if copy is None:
        return log
    from limpet.containers.logging.logdrivers.local import LocalLog

    max_size, max_file, compress = copy
    return WithCopy(log, LocalLog(f"{directory}/{LOCAL}", max_size, max_file, compress=compress))


def reach(store: Store, container: Container) -> None:
    """Before a start, as Docker: whether what is not on this disk takes the log. Raises Refused with what is wrong."""
    if container.options.log_driver not in REMOTE:
        return
    try:
        sender = _sender(store.container_path(container.id), container)
        sender.connect()
        sender.close()
    except (OSError, Invalid) as e:
        what = reason(e) if isinstance(e, OSError) else str(e)
        raise Refused(
            f"container {container.name}: its log driver {container.options.log_driver}: {what}",
            "--log-driver json-file writes to a file",
        ) from e


def _file(directory: str, container: Container) -> Any:
    from limpet.containers.logging import logfile

    options = container.options
    given, driver = options.log_opts, options.log_driver
    compress = choice.compressed(given, driver)
    if driver == "local":
        from limpet.containers.logging.logdrivers.local import LocalLog

        size, files = logfile.limits(given, choice.LOCAL_SIZE, choice.LOCAL_FILES)
        return LocalLog(f"{directory}/{LOCAL}", size, files, compress=compress)
    carried = ""
    if any(given.get(key) for key in ("tag", "labels", "labels-regex", "env", "env-regex")):
        from limpet.containers.logging.logdrivers import attributes

        image = attributes.image_config(directory)
        found = attributes.picked(container, image)
        if given.get("tag"):
            found = {"tag": attributes.tag(given["tag"], attributes.values(container, image)), **found}
        carried = jsontext.dumps(found) if found else ""
    size, files = logfile.limits(given)
    path = f"{directory}/{text_name(container)}"
    return logfile.LogFile(path, size, files, cri=driver == "k8s-file", attributes=carried, compress=compress)


def _sender(directory: str, container: Container) -> Any:
    from limpet.containers.logging.logdrivers import attributes

    image = attributes.image_config(directory)
    values = attributes.values(container, image)
    tag = attributes.tag(container.options.log_opts.get("tag", ""), values)
    if container.options.log_driver == "syslog":
        from limpet.containers.logging.logdrivers.syslog import Syslog

        return Syslog(container.options.log_opts, tag)
    from limpet.containers.logging.logdrivers.journald import Journald

    return Journald(values, tag, attributes.picked(container, image))


class Nowhere:
    """The driver `none`."""

    blocked = False
    descriptor = -1
    dropped = 0

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def retry(self, seconds: float = 0.0) -> None:
        pass

    def saved(self) -> list[Any] | None:
        return []

    def restore(self, saved: list[Any]) -> None:
        pass


class WithCopy:
    """A log that can't be read back, and a bounded copy on this disk that `logs` reads (Docker's dual logging)."""

    def __init__(self, log: Log, copy: Log) -> None:
        self._log = log
        self._copy = copy

    @property
    def blocked(self) -> bool:
        return self._log.blocked

    @property
    def descriptor(self) -> int:
        return self._log.descriptor

    @property
    def dropped(self) -> int:
        return self._log.dropped

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        self._copy.write(stream, data, moment)
        self._log.write(stream, data, moment)

    def flush(self) -> None:
        self._copy.flush()
        self._log.flush()

    def close(self) -> None:
        self._copy.close()
        self._log.close()

    def retry(self, seconds: float = 0.0) -> None:
        self._log.retry(seconds)

    def saved(self) -> list[Any] | None:
        log = self._log.saved()
        copy = self._copy.saved() if log is not None else None
        return None if log is None or copy is None else [log, copy]

    def restore(self, saved: list[Any]) -> None:
        self._log.restore(saved[0])
        self._copy.restore(saved[1])
