"""The second build: every step again, and each compared with what the first build made of the same things.

A step whose result differs is noted, and the build goes on with the first one's layer: so each step is judged by
itself, and all that are at fault are found at once. What is different for the second build: the context lies in another
directory, written in another order, with other times; caches (`RUN --mount=type=cache`) are empty; what a RUN writes
lies in memory, where a directory lists its files in another order than on a disk; the umask, the number of processors
and the time. The name of the host, its time zone and language, the user's environment and the
place of the store are the same for all builds: no step sees them.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field, replace
from typing import TYPE_CHECKING

from limpet.build import execute
from limpet.build.caching.steps import StepCache
from limpet.build.copying.context import context as open_context
from limpet.build.inspector import Inspector
from limpet.build.reporting.report import Making, Report, steps
from limpet.build.reproducible.differ import Differ
from limpet.build.reproducible.reasons import reason
from limpet.build.steps import cachemounts
from limpet.errors import Invalid, LimpetError
from limpet.frozen import dataclass
from limpet.images import collect
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from limpet.build.copying.context import Tree
    from limpet.build.inspector import Looked
    from limpet.build.language.ignore import Ignore, State
    from limpet.build.planning.plan import Copy, Directory, Plan, Run
    from limpet.build.reporting.report import Event
    from limpet.build.reproducible.differ import Content, Difference
    from limpet.build.reproducible.reasons import Reason
    from limpet.build.steps.stepmounts import Given
    from limpet.store.store import Store

MOST = 10_000
"""Files of one step that are looked at for a reason; of the others only the number is known."""

_SHOWN_BYTES = 48
_MORE = 8  # how many times its layer a step may need while it runs
_LONG_AGO = 978_307_200  # 2001, the first of the times that the context's files get


@dataclass(frozen=True, slots=True)
class Found:
    """A file that differs. `samples`: some bytes of both around the first range, where its content does."""

    difference: Difference
    reason: Reason | None
    samples: tuple[bytes, bytes] | None


@dataclass(slots=True)
class Fault:
    """A step that made something else. `count`: of all its files that differ, `found` has `MOST` at most."""

    step: Copy | Run | Directory
    number: int
    found: list[Found] = field(default_factory=list)
    count: int = 0


class Second:
    """`run` does it; then `faults`, `steps` (how many were compared) and `same_image` say what came of it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.steps = 0
        self.same_image = True
        self.path = ""
        self._extra: list[str] = []
        self._lock = threading.Lock()

    @property
    def ok(self) -> bool:
        return not self.faults and self.same_image

    def run(
        self,
        store: Store,
        made: Plan,
        directory: str,
        ignored: Ignore,
        first: tuple[execute.Made, ...],
        *,
        labels: Mapping[str, str],
        epoch: int,
        given: Given,
        to: Report,
        named: Callable[[str], Tree] | None = None,
    ) -> None:
        """`first` is what the first build made of the plan. The caller holds a lease. Raises LimpetError."""
        self.path = made.path
        begun = time.time()
        with ExitStack() as stack:
            place = store.temporary("again")
            stack.callback(remove_tree, place)
            copy_context(directory, place, ignored)
            caches = f"again-{os.urandom(6).hex()}/"
            stack.callback(_remove_caches, store, caches)
            tree = open_context(place, ignored)
            stack.callback(tree.close)
            stack.enter_context(_other_conditions())
            time.sleep(max(0.0, begun + 1.1 - time.time()))  # many times are written in whole seconds
            comparing = _Comparing(store, self)
            try:
                second = execute.execute(
                    store,
                    made,
                    tree,
                    labels=labels,
                    epoch=epoch,
                    cache=StepCache(store, no_cache=True),
                    given=replace(given, caches=caches, debug=False, in_memory=comparing.memory),
                    to=_Again(to, made),
                    inspector=comparing,
                    named=named,
                )
            except LimpetError as e:
                raise type(e)(f"the second build failed: {e.message}", e.hint, exit_code=e.exit_code) from e
        self.same_image = second == first

    def tidy(self, store: Store) -> None:
        """The second build's layers go; without a lease. What another command is in the way of, `prune` takes."""
        collect.drop_layers(store, self._extra)
        self._extra = []

    def compare(self, store: Store, looked: Looked, diff_id: str) -> None:
        with self._lock:
            self.steps += 1
            if diff_id != looked.cached:
                self._extra.append(diff_id)
        if diff_id == looked.cached:
            return
        fault = Fault(looked.step, looked.number)
        with Differ(store, looked.cached, diff_id) as differ:
            for each in differ.differences():
                fault.count += 1
                if len(fault.found) < MOST:
                    fault.found.append(Found(replace(each, contents=None), reason(each), _samples(each)))
        with self._lock:
            self.faults.append(fault)
            self.faults.sort(key=lambda each: each.number)


class _Again(Report):
    """A line for each step."""

    def __init__(self, to: Report, made: Plan) -> None:
        super().__init__()
        self._to = to
        self._steps = {step.number: step for step in steps(made).values()}

    def emit(self, event: Event) -> None:
        if isinstance(event, Making):
            step = self._steps[event.step]
            self._to.say(f"again [{step.number}/{len(self._steps)}] {step.text}")


class _Comparing(Inspector):
    def __init__(self, store: Store, second: Second) -> None:
        self._store = store
        self._second = second
        self._sizes: dict[int, int] = {}  # of the first build's layers, by the step's number

    def looked_up(self, looked: Looked) -> str:
        if looked.cached:
            with suppress(OSError):
                self._sizes[looked.number] = os.stat(f"{self._store.layer_path(looked.cached)}/data").st_size
        return ""

    def memory(self, number: int) -> int:
        """Bytes for what a step writes: none if they might not be enough."""
        available = _available_memory() // 2
        return available if number in self._sizes and self._sizes[number] * _MORE < available else 0

    def made(self, looked: Looked, diff_id: str | None) -> str | None:
        if diff_id is None or not looked.cached:  # the first one's was removed meanwhile
            return diff_id
        self._second.compare(self._store, looked, diff_id)
        return looked.cached


def copy_context(directory: str, place: str, ignored: Ignore) -> None:
    """The context elsewhere: its entries are made in the reverse order, and times are other ones. Raises Invalid."""
    try:
        os.mkdir(place, 0o700)
        _copy_directory(directory, place, "", ignored, ignored.state("")[1], [_LONG_AGO])
    except OSError as e:
        raise Invalid(f"the context can't be copied for the second build: {e.strerror}: {e.filename}") from e


def _copy_directory(source: str, target: str, relative: str, ignored: Ignore, state: State, clock: list[int]) -> None:
    """`clock`: seconds, the next file's time."""
    for name in sorted(os.listdir(source), reverse=True):
        path, goal, within = f"{source}/{name}", f"{target}/{name}", f"{relative}/{name}" if relative else name
        left_out, inner = ignored.step(within, state)
        info = os.lstat(path)
        is_directory = stat.S_ISDIR(info.st_mode)
        if left_out and not (is_directory and ignored.reaches(within)):
            continue
        if is_directory:
            os.mkdir(goal, 0o700)
            _copy_directory(path, goal, within, ignored, inner, clock)
            os.chmod(goal, stat.S_IMODE(info.st_mode))
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(path), goal)
        elif stat.S_ISREG(info.st_mode):
            shutil.copyfile(path, goal, follow_symlinks=False)
            os.chmod(goal, stat.S_IMODE(info.st_mode))
        elif stat.S_ISSOCK(info.st_mode):
            os.mknod(goal, info.st_mode)
        # Devices and FIFOs: no step of the first build took one.
        clock[0] += 7
        os.utime(goal, (clock[0], clock[0]), follow_symlinks=False)


@contextmanager
def _other_conditions() -> Iterator[None]:
    """Another umask, and one processor."""
    umask = os.umask(0o077)
    if umask == 0o077:
        os.umask(0o002)
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(processors)})
        yield
    finally:
        os.umask(umask)
        os.sched_setaffinity(0, processors)


def _available_memory() -> int:
    """Bytes (proc(5), MemAvailable); 0 if that isn't known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")), 0)
    except OSError:
        return 0


def _remove_caches(store: Store, prefix: str) -> None:
    for cache in cachemounts.caches(store):
        if cache.name.startswith(prefix):
            cachemounts.remove(store, cache.key)


def _samples(difference: Difference) -> tuple[bytes, bytes] | None:
    if difference.contents is None:
        return None
    one, two = difference.contents
    start = difference.ranges[0].start
    return _sample(one, start), _sample(two, start)


def _sample(content: Content, start: int) -> bytes:
    """From the beginning of the line on, if that is near and text."""
    begin = max(0, start - _SHOWN_BYTES)
    before = content.read(begin, start - begin).rpartition(b"\n")[2]
    after = content.read(start, _SHOWN_BYTES)
    is_text = before.isascii() and before.decode("latin-1").isprintable()
    return before + after if is_text else after
