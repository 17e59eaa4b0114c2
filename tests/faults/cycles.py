"""The fault harness: containers begin, work and end, several at once, and somebody kills a part of them at random.

    tools/faults --cycles 1000 --jobs 8 --seed 7

A cycle is one container's life: it is made (named, `--rm`, with a restart policy, with volumes), started, has programs
executed in it, is stopped, started again, removed. In most cycles SIGKILL hits the client, the monitor, the
container's init, or all of them, at a random moment of one of the steps. After each cycle the state has to be a plain
one and the name usable at once; after all of them nothing may be left: no process, mount, control group, BPF program,
file.

What the seed gives is the plan of each cycle, moments included; who is hit in the middle of what the machine decides.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limpet.containers import recovery, state
from limpet.errors import NotFound
from limpet.kernel import cgroup
from limpet.store.store import Store

MARK = "LIMPET_TEST_CYCLE"
"""The environment variable by which a cycle's processes are known: nobody else's are ever hit."""

VICTIMS = ("client", "monitor", "init", "all")
STATES = ("created", "running", "restarting", "paused", "exited")
PATIENCE = 30.0  # seconds for anything that has to come to pass by itself
_LATEST = 0.12  # seconds after a command's begin at which somebody is killed, at most

KINDS: dict[str, list[str]] = {
    "named": [],
    "--rm": ["--rm"],
    "--restart always": ["--restart", "always"],
    "--restart on-failure": ["--restart", "on-failure:3"],
    "named volume": ["-v", "shared:/data"],
    "anonymous volume": ["-v", "/data"],
    "--rm with a volume": ["--rm", "-v", "/data"],
    "--init": ["--init"],
    "limits": ["--memory", "64m", "--pids-limit", "50", "--cpus", "1"],
    "user namespace": ["--userns", "auto"],
}
PROGRAMS = {
    "sleeps": "exec sleep 1000",
    "writes": "while :; do echo line; sleep 0.01; done",
    "fails": "sleep 0.02; exit 3",
    "ends": "true",
    "has children": "for i in 1 2 3 4 5; do sleep 1000 & done; wait",
}
STEPS = ("exec", "exec -d", "stop", "kill", "restart", "start", "pause", "logs", "cp")


class Fault(AssertionError):
    """Something is not as it has to be."""


@dataclass(frozen=True)
class Plan:
    """One cycle. `hits`: step (0 is the beginning) → who is killed, and how many seconds into it."""

    kind: str
    program: str
    attached: bool
    apart: bool
    steps: tuple[str, ...]
    hits: dict[int, tuple[str, float]]

    def __str__(self) -> str:
        begin = "create, start" if self.apart else "run" if self.attached else "run -d"
        steps = [begin, *self.steps, "end"]
        for number, (victim, seconds) in self.hits.items():
            steps[number] += f" ({victim} killed after {seconds * 1000:.0f} ms)"
        return f"{self.kind}, {self.program}: {', '.join(steps)}"


def plan(seed: int, number: int) -> Plan:
    rng = random.Random(f"{seed}.{number}")
    steps = tuple(rng.choice(STEPS) for _ in range(rng.randint(1, 3)))
    hits = {}
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        hits[rng.randint(0, len(steps) + 1)] = rng.choice(VICTIMS), rng.random() ** 1.5 * _LATEST
    return Plan(
        kind=rng.choice(list(KINDS)),
        program=rng.choice(list(PROGRAMS)),
        attached=rng.random() < 0.3,
        apart=rng.random() < 0.3,
        steps=steps,
        hits=hits,
    )


@dataclass
class Counts:
    """What happened, and what went wrong."""

    cycles: int = 0
    commands: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {self.kinds[kind]}" for kind in KINDS)
        killed = ", ".join(f"{victim} {self.killed[victim]}" for victim in VICTIMS)
        hits = sum(self.killed[victim] for victim in VICTIMS)
        return (
            f"{self.cycles} cycles ({kinds})\n{self.commands} commands, {hits} hits ({killed}),"
            f" {self.killed['processes']} processes killed\n{len(self.faults)} faults"
        )


class Harness:
    def __init__(self, command: list[str], root: Path, environment: dict[str, str], image: str, seed: int) -> None:
        self._command = command
        self._root = root
        self._environment = environment
        self._image = image
        self._seed = seed
        self._lock = threading.Lock()
        self.counts = Counts()
        self.ids: set[str] = set()
        """Of all containers that anybody saw."""

    def run(self, cycles: int, jobs: int, say: Any = None) -> Counts:
        """Raises nothing: faults are in the counts."""
        numbers = iter(range(cycles))

        def work() -> None:
            store = self._store()
            while True:
                with self._lock:
                    number = next(numbers, -1)
                if number < 0:
                    break
                todo = plan(self._seed, number)
                try:
                    Cycle(self, store, number, todo).run()
                except Exception as e:
                    text = str(e) if isinstance(e, Fault) else traceback.format_exc()
                    with self._lock:
                        self.counts.faults.append(f"cycle {number}: {todo}\n    {text}")
                with self._lock:
                    self.counts.cycles += 1
                    self.counts.kinds[todo.kind] += 1
                    if say is not None and self.counts.cycles % 50 == 0:
                        say(f"{self.counts.cycles} cycles, {len(self.counts.faults)} faults")
            store.close()

        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._nothing_is_left()
        return self.counts

    def _store(self) -> Store:
        return Store(self._environment["LIMPET_ROOT"], self._environment["LIMPET_RUN"])

    def execute(self, mark: str, *words: str) -> subprocess.Popen[str]:
        with self._lock:
            self.counts.commands += 1
        return subprocess.Popen(
            [*self._command, *words],
            env={**self._environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def tally(self, victim: str, processes: int) -> None:
        with self._lock:
            self.counts.killed[victim] += 1
            self.counts.killed["processes"] += processes

    def _nothing_is_left(self) -> None:
        """All containers are removed, garbage is collected once, and then there is nothing any more."""
        store = self._store()
        try:
            for words in (("system", "recover"), ("rm", "-fv"), ("volume", "prune", "-af"), ("system", "prune", "-f")):
                more = [row[0] for row in store.db.rows("SELECT id FROM container")] if words[0] == "rm" else []
                if words[0] == "rm" and not more:
                    continue
                self._expect(self.execute("end", *words, *more), words)
            self._expect(self.execute("end", "system", "check"), ("system", "check"), "nothing is wrong\n")
            left = [f"group {place}" for place in recovery.orphaned_groups(store)]
        finally:
            store.close()
        for folder in ("containers", "volumes", "tmp"):
            left += [f"file {self._root}/{folder}/{name}" for name in os.listdir(self._root / folder)]
        run = self._environment["LIMPET_RUN"]
        left += [
            f"file {run}/{name}" for name in os.listdir(run) if len(name) == 64
        ]  # a container's; others are caches
        for hierarchy in Path("/sys/fs/cgroup").glob(f"**/{cgroup.PARENT}"):
            left += [f"group {hierarchy}/{name}" for name in os.listdir(hierarchy) if name in self.ids]
        end = time.monotonic() + PATIENCE
        while (alive := marked(f"{self._seed}.")) and time.monotonic() < end:
            time.sleep(0.05)  # a settling process, a client that hears of the end
        left += [f"process {pid}: {command_line(pid)}" for pid in alive]
        table = Path("/proc/self/mountinfo").read_text()
        left += [f"mount {line}" for line in table.splitlines() if str(self._root) in line]
        self.counts.faults += [f"left over: {thing}" for thing in left]

    def _expect(self, process: subprocess.Popen[str], words: tuple[str, ...], output: str | None = None) -> None:
        out, err = process.communicate(timeout=300)
        if process.returncode or (output is not None and out != output):
            self.counts.faults.append(f"at the end: {' '.join(words)}: exit {process.returncode}\n    {out}{err}")


class Cycle:
    def __init__(self, harness: Harness, store: Store, number: int, todo: Plan) -> None:
        self._harness = harness
        self._store = store
        self._plan = todo
        self._name = f"box-{number}"
        self._mark = f"{harness._seed}.{number}"
        self._id = ""

    def run(self) -> None:
        step = 0
        for words in self._begin():
            self._do(step, words, hit=words[0] != "create")
        for step, name in enumerate(self._plan.steps, 1):
            for words in self._words(name):
                self._do(step, words)
            self._look()
        self._do(len(self._plan.steps) + 1, ("rm", "-f", "-v", self._name))
        self._name_is_free()

    def _begin(self) -> list[tuple[str, ...]]:
        todo = self._plan
        made = ["--name", self._name, *KINDS[todo.kind], self._harness._image, "sh", "-c", PROGRAMS[todo.program]]
        if todo.apart:
            return [("create", *made), ("start", self._name)]
        return [("run", *([] if todo.attached else ["-d"]), *made)]

    def _words(self, step: str) -> list[tuple[str, ...]]:
        name = self._name
        return {
            "exec": [("exec", name, "sh", "-c", "echo in; sleep 0.05")],
            "exec -d": [("exec", "-d", name, "sleep", "1000")],
            "stop": [("stop", "-t", "0", name)],
            "kill": [("kill", name)],
            "restart": [("restart", "-t", "0", name)],
            "start": [("start", name)],
            "pause": [("pause", name), ("unpause", name)],
            "logs": [("logs", name)],
            "cp": [("cp", f"{name}:/etc/passwd", "-")],
        }[step]

    def _do(self, step: int, words: tuple[str, ...], *, hit: bool = True) -> None:
        process = self._harness.execute(self._mark, *words)
        victim, seconds = self._plan.hits.get(step, ("", 0.0))
        stays = words[0] == "run" and "-d" not in words and self._plan.program in ("sleeps", "writes", "has children")
        killed = False
        if victim and hit:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
            killed = self._kill(victim, process)
        if stays:  # until it is hit, or until somebody has seen enough
            end = time.monotonic() + 0.3
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Fault(f"{' '.join(words)} does not end; {self._describe()}") from None
        self._plain(words, process.returncode, out, err)
        allowed = (0, -9) if words[0] == "rm" and not killed else range(-9, 256)
        if process.returncode not in allowed:
            raise Fault(f"{' '.join(words)}: exit {process.returncode}: {err}")
        self._remember()

    def _plain(self, words: tuple[str, ...], code: int, out: str, err: str) -> None:
        """An error, if there is one, is one of ours: a line and a hint, and no accident."""
        if "Traceback" in out + err or "internal error" in err or "Errno" in err:
            raise Fault(f"{' '.join(words)}: exit {code}: {out}{err}")
        lines = [line for line in err.splitlines() if line.startswith("limpet: ")]
        if len(lines) > 2:
            raise Fault(f"{' '.join(words)}: exit {code}, with many words: {err}")

    def _remember(self) -> None:
        try:
            self._id = state.find(self._store, self._name).id
        except NotFound:
            return
        with self._harness._lock:
            self._harness.ids.add(self._id)

    def _kill(self, victim: str, client: subprocess.Popen[str]) -> bool:
        """Whether anybody was there to be hit."""
        self._remember()
        pids: set[int] = set()
        if victim in ("client", "all") and client.poll() is None:
            pids.add(client.pid)
        ours = set(marked(self._mark)) if victim in ("monitor", "all") else set()
        if victim == "all":
            pids |= ours
        elif victim == "monitor":
            pids |= {pid for pid in ours if name_of(pid) == "limpet-monitor"}
        if victim in ("init", "all") and self._id:
            group = cgroup.path(self._id)
            inside = cgroup_pids(group)
            first = [pid for pid in inside if pid_inside(pid) == 1]
            pids |= set(inside if victim == "all" else first)
        hits = sum(map(kill, pids))
        if hits:
            self._harness.tally(victim, hits)
        return bool(hits)

    def _look(self) -> None:
        """What anybody would see now is one of the plain states, and true."""
        process = self._harness.execute(self._mark, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", self._name)
        out, err = process.communicate(timeout=PATIENCE)
        self._plain(("inspect",), process.returncode, out, err)
        if process.returncode:
            if "No such" not in err:
                raise Fault(f"inspect: {err}")
            return
        status, pid = out.split()
        if status not in STATES:
            raise Fault(f"inspect: {out}")
        if (status in ("running", "paused")) != (pid != "0"):
            raise Fault(f"it is {status}, and its pid is {pid}")

    def _name_is_free(self) -> None:
        """At once, whatever happened to the one that had it."""
        last = len(self._plan.steps) + 1
        try:
            container = state.find(self._store, self._name)
        except NotFound:
            pass
        else:
            if last not in self._plan.hits:
                raise Fault(f"rm -f left it: {self._describe()}")
            if not (container.options.auto_remove and state.status(self._store, container).lost):
                self._do(last + 1, ("rm", "-f", "-v", self._name))
        process = self._harness.execute(
            self._mark, "run", "--rm", "--name", self._name, self._harness._image, "echo", "again"
        )
        out, err = process.communicate(timeout=PATIENCE)
        if (process.returncode, out) != (0, "again\n"):
            raise Fault(f"the name is not free: exit {process.returncode}: {out}{err}; {self._describe()}")
        try:
            raise Fault(f"run --rm left {state.find(self._store, self._name).id}")
        except NotFound:
            pass
        if self._id:
            self._is_gone(self._id)

    def _is_gone(self, container_id: str) -> None:
        """Processes and groups; files may be garbage for the next collection."""
        end = time.monotonic() + PATIENCE
        group = cgroup.path(container_id)
        while cgroup_pids(group):
            if time.monotonic() > end:
                raise Fault(f"processes of {container_id} live on: {cgroup_pids(group)}")
            time.sleep(0.01)

    def _describe(self) -> str:
        try:
            container = state.find(self._store, self._name)
        except NotFound:
            return f"no container has the name {self._name}"
        status = state.status(self._store, container)
        found = {key: getattr(status, key) for key in state.Status.__slots__}
        processes = {pid: command_line(pid) for pid in marked(self._mark)}
        return f"{container.id[:12]}: {found}, processes {processes}"


def marked(mark: str) -> list[int]:
    """The processes that have the mark, or one that begins so if it ends with a dot."""
    wanted = f"{MARK}={mark}".encode() + (b"" if mark.endswith(".") else b"\0")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes() + b"\0"
            except OSError:
                continue
            if wanted in environment:
                found.append(int(entry))
    return found


def kill(pid: int) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def cgroup_pids(group: str | None) -> list[int]:
    try:
        return cgroup.pids(group) if group else []
    except OSError:
        return []


def pid_inside(pid: int) -> int:
    """Its number in its own PID namespace (proc(5), NSpid)."""
    return int(_status(pid).get("NSpid", "0").split()[-1])


def name_of(pid: int) -> str:
    return _status(pid).get("Name", "")


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "(ended)"


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def main(words: list[str]) -> int:
    """`tools/faults`."""
    from tests import conftest, host

    parser = argparse.ArgumentParser(prog="tools/faults", description="Kills parts of containers at random.")
    parser.add_argument("--cycles", type=int, default=1000, help="lives of containers (default 1000)")
    parser.add_argument("--jobs", type=int, default=8, help="how many at once (default 8)")
    parser.add_argument("--seed", type=int, default=None, help="of the plans; without one, another each time")
    options = parser.parse_args(words)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="limpet-faults-", dir="/var/tmp") as place:
        session = host.Session(Path(place))
        runner = conftest.runner(Path(place) / "store")
        rootfs = Path(place) / "busybox.tar"
        conftest.make_busybox(Path(place) / "rootfs")
        with tarfile.open(rootfs, "w") as tar:
            tar.add(Path(place) / "rootfs", ".")
        runner("import", "-q", rootfs, "busybox:test")
        harness = Harness(runner.command, runner.root, runner.environment, "busybox:test", seed)
        began = time.monotonic()
        counts = harness.run(options.cycles, options.jobs, lambda text: print(text, flush=True))
        counts.faults += [f"left over: {thing}" for thing in session.leftovers()]
        session.close()
        for fault in counts.faults:
            print(fault)
        print(f"{counts} in {time.monotonic() - began:.0f} s (seed {seed})")
    return bool(counts.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
