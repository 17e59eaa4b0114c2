"""The open store: paths, the database, and the lock between those who add and the one who collects."""

from __future__ import annotations

import fcntl
import os

from limpet.errors import LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.store.db import Database

DEFAULT_ROOT = "/var/lib/limpet"
DEFAULT_RUN = "/run/limpet"


class Store:
    """`root` and `run` are absolute paths. Directories are made when the store is opened for the first time.

    `absent`: there is none, and this one was opened without `make`: it is empty, and nothing is written.
    """

    def __init__(self, root: str = "", run: str = "", *, make: bool = True) -> None:
        self.root = os.path.abspath(root or os.environ.get("LIMPET_ROOT", "") or DEFAULT_ROOT)
        chosen = run or os.environ.get("LIMPET_RUN", "")
        # A store elsewhere has its own run directory, so that two stores never see each other's containers.
        self.run = os.path.abspath(chosen or (DEFAULT_RUN if self.root == DEFAULT_ROOT else f"{self.root}/run"))
        self._db: Database | None = None
        self.stopped: Callable[[], None] = _nothing
        """Called now and then by what takes long in a thread: raises when nobody wants it any more."""
        self.kept: dict[str, int] | None = None
        """Mounts of layers, by what was mounted, where one stack is mounted after another (`layers.driver.keeping`)."""
        here = os.path.exists(f"{self.root}/state.db")
        self.absent = not (here or make)
        if self.absent:
            return
        if not here:
            self._create()
        os.makedirs(self.run, mode=0o711, exist_ok=True)

    def _create(self) -> None:
        above = os.path.dirname(self.root)
        if not os.path.isdir(above):
            raise LimpetError(
                f"{self.root}: {above} is no directory", "choose another place with --root or LIMPET_ROOT"
            )
        try:
            for name in ("", "blobs", "blobs/sha256", "layers", "containers", "volumes", "tmp"):
                os.makedirs(f"{self.root}/{name}".rstrip("/"), mode=0o711 if name else 0o710, exist_ok=True)
        except OSError as e:
            raise LimpetError(f"{self.root}: {e.strerror}", "choose another place with --root or LIMPET_ROOT") from e

    @property
    def db(self) -> Database:
        """The database, opened on first use. Not to be had in a child of a process that had it open (see `forget`)."""
        if self._db is None:
            if _leaked:
                raise RuntimeError("the database was open when this process was forked")
            from limpet.store.db import Database  # SQLite is 4 ms to load, and monitors have no use for it

            self._db = Database("" if self.absent else f"{self.root}/state.db")
        return self._db

    def close(self) -> None:
        """Closes the database, if it is open; the next use opens it again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def forget(self) -> None:
        """For a forked child: drops its parent's connection without closing it, and refuses to open another.

        SQLite does not survive a fork: the connection's locks are the parent's alone, and even a new one in the child
        would share the process-wide record of them. That looks like "locking protocol", or worse, a broken database.
        """
        if self._db is not None:
            _leaked.append(self._db)
            self._db = None

    def blob_path(self, digest: str) -> str:
        """`digest` must have been checked (`oci.digest.check`): it becomes a path."""
        return f"{self.root}/blobs/{digest.replace(':', '/')}"

    def layer_path(self, diff_id: str) -> str:
        return f"{self.root}/layers/{diff_id.partition(':')[2]}"

    def container_path(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}"

    def run_path(self, container_id: str) -> str:
        return f"{self.run}/{container_id}"

    def volume_path(self, name: str) -> str:
        return f"{self.root}/volumes/{name}"

    def temporary(self, purpose: str) -> str:
        """A path in tmp/ that does not exist yet, on the same file system as all else."""
        return f"{self.root}/tmp/{purpose}-{os.getpid()}-{os.urandom(6).hex()}"

    def lease(self) -> Lock:
        """`with store.lease():` around everything that makes files before their rows: garbage collection waits."""
        return Lock("/dev/null" if self.absent else f"{self.root}/lock", fcntl.LOCK_SH)

    def exclusive(self) -> Lock:
        """`with store.exclusive() as held:` for garbage collection. `held` is False at once if a lease is out."""
        return Lock("/dev/null" if self.absent else f"{self.root}/lock", fcntl.LOCK_EX | fcntl.LOCK_NB)


def _nothing() -> None:
    pass


_leaked: list[Database] = []  # never closed: that would touch the parent's files


class Lock:
    """An flock, released when the block or the process ends."""

    def __init__(self, path: str, operation: int) -> None:
        self._path = path
        self._operation = operation
        self._fd = -1

    def __enter__(self) -> bool:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, self._operation)
        except BlockingIOError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
