"""Compares limpet with docker and podman in one run: `bench/run [--quick] [CASE…]`.

Each figure is a median over interleaved rounds (limpet, docker, podman, limpet, …), whole processes from outside;
what counts is the ratio to docker. Without a case: all but `growth`, which takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from typing import TYPE_CHECKING

import crowd
import engines
import link

import images
import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines import Engine

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
GOALS = {"pull": 0.25, "present": 0.5, "push": 0.5, "load": 0.25, "run": 0.35, "exec": 0.35, "ps": 1.0, "rmi": 0.5}
GOALS |= {"logs": 1.0}
GOALS |= {"steps": 0.3, "cached": 0.5, "copy": 0.5}
CASES = [
    "pull",
    "present",
    "push",
    "load",
    "run",
    "isolate",
    "exec",
    "logs",
    "ps",
    "crowd",
    "memory",
    "rmi",
    "build",
    "link",
    "serve",
]
LEVELS = ("none", "light", "default", "strict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES, help=" ".join([*CASES, "growth"]))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    layouts = images.make(engines.CHECKOUT / ".cache/bench")
    subprocess.run([str(engines.CHECKOUT / "limpet"), "version"], check=True, stdout=subprocess.DEVNULL)
    scratch = Path(tempfile.mkdtemp(prefix="limpet-bench-", dir="/var/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = engines.registry(scratch, port)
    candidates = [engines.limpet(scratch), engines.docker(scratch), engines.podman(scratch)]
    try:
        Bench([e for e in candidates if e], layouts, scratch, port, options.quick).run(options.cases)
    finally:
        for engine in filter(None, candidates):
            for container in engine("ps", "-aq", check=False).split():
                engine("rm", "-f", container, check=False)
            engine.close()
        server.terminate()
        server.wait()
        _unmount_below(scratch)
        shutil.rmtree(scratch, ignore_errors=True)


class Bench:
    def __init__(self, found: list[Engine], layouts: dict[str, Path], scratch: Path, port: int, quick: bool) -> None:
        self.engines, self.layouts, self.scratch, self.port, self.quick = found, layouts, scratch, port, quick
        self.big, self.many = f"127.0.0.1:{port}/big:1", f"127.0.0.1:{port}/many:1"

    def run(self, cases: list[str]) -> None:
        for name, layout in self.layouts.items():
            target = f"docker://127.0.0.1:{self.port}/{name}:1"
            # fmt: off
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{name}", target],
                           check=True)
            subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}:{name}",
                            f"docker-archive:{self.scratch}/{name}.tar:127.0.0.1:{self.port}/{name}:1"], check=True)
            # fmt: on
        print(f"{'':34s}" + "".join(f"{e.name:>12s}" for e in self.engines) + "   ÷ docker  goal")
        for case in cases:
            getattr(self, f"case_{case}")()

    def rounds(self, slow: int = 5) -> int:
        return 3 if self.quick else slow

    def row(
        self, label: str, figures: dict[str, list[float]], goal: str = "", scale: float = 1e3, unit: str = "ms"
    ) -> None:
        medians = {name: statistics.median(values) for name, values in figures.items()}
        text = f"{label:34s}" + "".join(f"{medians[e.name] * scale:9.1f} {unit}" for e in self.engines)
        if medians.get("docker"):
            text += f"   {medians['limpet'] / medians['docker']:6.2f}"
            text += f"  ≤ {GOALS[goal]}" if goal else ""
        print(text, flush=True)

    def measure(
        self, rounds: int, act: Callable[[Engine], object], before: Callable[[Engine], object] | None = None
    ) -> dict[str, list[float]]:
        figures: dict[str, list[float]] = {e.name: [] for e in self.engines}
        for _ in range(rounds):
            for engine in self.engines:
                if before:
                    before(engine)
                start = time.perf_counter()
                act(engine)
                figures[engine.name].append(time.perf_counter() - start)
        return figures

    def need(self) -> None:
        for engine in self.engines:
            engine("pull", *engine.pull_options, self.big)

    def case_pull(self) -> None:
        for label, image in (("pull, 1 layer of 200 MB", self.big), ("pull, 20 layers", self.many)):
            figures = self.measure(
                self.rounds(),
                lambda e, image=image: e("pull", *e.pull_options, image),
                lambda e, image=image: e("rmi", "-f", image, check=False),
            )
            self.row(label, figures, "pull")
        limpet = self.engines[0]
        limpet("rmi", "-f", self.big)
        # By a small process: a child begins with the peak of whoever it was spawned by (`exec_mmap`).
        code = (
            "import os, resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        words = [sys.executable, "-S", "-I", "-c", code, *limpet.command, "pull", "-q", self.big]
        peak = int(subprocess.run(words, env=limpet.environment, capture_output=True, check=True).stdout)
        print(f"{'peak memory of limpet pull':34s}{peak / 1024:9.1f} MiB   (goal: under 150)")

    def case_present(self) -> None:
        for label, image in (("pull, all of 1 layer here", self.big), ("pull, all of 20 layers here", self.many)):
            for engine in self.engines:
                engine("pull", *engine.pull_options, image)
            figures = self.measure(self.rounds(21), lambda e, image=image: e("pull", *e.pull_options, image))
            self.row(label, figures, "present")

    def case_push(self) -> None:
        """Each time to a registry that is empty: of what was pulled, and of what has no blob yet."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = engines.registry(self.scratch, port, storage="empty")
        there = f"127.0.0.1:{port}"
        try:
            for name, source, label in (("big", self.big, "1 layer of 200 MB"), ("many", self.many, "20 layers")):
                for engine in self.engines:
                    engine("pull", *engine.pull_options, source)
                    engine("tag", source, f"{there}/{name}:1")
                figures = self.measure(
                    self.rounds(),
                    lambda e, name=name: e("push", *e.pull_options, f"{there}/{name}:1"),
                    lambda e: self._empty(),
                )
                self.row(f"push, pulled, {label}", figures, "push")
                self._skopeo_push(there, name)
            figures = self.measure(
                self.rounds(),
                lambda e: e("push", *e.pull_options, f"{there}/new:1"),
                lambda e: self._made_anew(e, there),
            )
            self.row("push, new, 1 layer of 200 MB", figures, "push")
        finally:
            server.terminate()
            server.wait()

    def _empty(self) -> None:
        shutil.rmtree(self.scratch / "empty", ignore_errors=True)

    def _made_anew(self, engine: Engine, there: str) -> None:
        """The layer comes from an archive with plain tars: nobody has a compressed form of it."""
        self._empty()
        for name in (self.big, f"{there}/big:1", f"{there}/new:1"):
            engine("rmi", "-f", name, check=False)
        engine("load", "-q", "-i", f"{self.scratch}/big.tar")
        engine("tag", self.big, f"{there}/new:1")

    def _skopeo_push(self, there: str, name: str) -> None:
        source, target = f"oci:{self.layouts[name]}:{name}", f"docker://{there}/{name}:1"
        taken = []
        for _ in range(self.rounds()):
            self._empty()
            start = time.perf_counter()
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", source, target], check=True)
            taken.append(time.perf_counter() - start)
        print(f"  the same by skopeo copy from a layout: {statistics.median(taken) * 1e3:.1f} ms", flush=True)

    def case_load(self) -> None:
        for label, name in (("load, 1 layer of 200 MB", "big"), ("load, 20 layers", "many")):
            archive = f"{self.scratch}/{name}.tar"
            image = f"127.0.0.1:{self.port}/{name}:1"
            figures = self.measure(
                self.rounds(),
                lambda e, archive=archive: e("load", "-q", "-i", archive),
                lambda e, image=image: e("rmi", "-f", image, check=False),
            )
            self.row(label, figures, "load")

    def case_run(self) -> None:
        self.need()
        figures = self.measure(self.rounds(15), lambda e: e("run", "--rm", *e.run_options, self.big, "true"))
        self.row("run --rm IMAGE true", figures, "run")

    def case_isolate(self) -> None:
        """Each degree beside what the others do without an option."""
        self.need()
        words = [("run", "--rm", "--isolate", level, self.big, "true") for level in LEVELS]
        limpet, *others = self.engines
        figures: dict[str, list[float]] = {name: [] for name in (*LEVELS, *(e.name for e in others))}
        for _ in range(self.rounds(15)):
            for level, arguments in zip(LEVELS, words, strict=True):
                figures[level].append(_timed(lambda arguments=arguments: limpet(*arguments)))
            for engine in others:
                act = (engine, "run", "--rm", *engine.run_options, self.big, "true")
                figures[engine.name].append(_timed(lambda act=act: act[0](*act[1:])))
        for level in LEVELS:
            beside = {e.name: figures[e.name] for e in others}
            self.row(f"run --rm --isolate {level}", {"limpet": figures[level], **beside}, "run")

    def case_exec(self) -> None:
        self.need()
        for engine in self.engines:
            engine("run", "-d", "--name", "exec", *engine.run_options, self.big, "sleep", "1000")
        self.row("exec true", self.measure(self.rounds(15), lambda e: e("exec", "exec", "true")), "exec")
        for engine in self.engines:
            engine("rm", "-f", "exec")

    def case_logs(self) -> None:
        """A container writes 200 MB of short lines, nobody attached: until its end, and what that costs the engine."""
        self.need()
        size = 20_000_000 if self.quick else 200_000_000
        line = "2026-11-24 12:00:00 INFO request served path=/index.html status=200 bytes=5123 time=0.0012 agent=curl"
        script = f"yes '{line}' | head -c {size}"
        for driver in ("json-file", "local"):
            options = ["--log-driver", driver, "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
            seconds: dict[str, list[float]] = {e.name: [] for e in self.engines}
            used: dict[str, list[float]] = {e.name: [] for e in self.engines}
            for _ in range(self.rounds(3)):
                for engine in self.engines:
                    if engine.name == "podman" and driver == "local":  # it has none
                        seconds[engine.name].append(0.0)
                        used[engine.name].append(0.0)
                        continue
                    before = most = engine.processor_seconds()
                    start = time.perf_counter()
                    given = options if engine.name != "podman" else ["--log-driver", "k8s-file", *options[2:4]]
                    # fmt: off
                    engine("run", "-d", "--name", "flood", *given, *engine.run_options, self.big, "sh", "-c", script)
                    # fmt: on
                    waiting = subprocess.Popen(
                        [*engine.command, "wait", "flood"], env=engine.environment, stdout=subprocess.DEVNULL
                    )
                    while waiting.poll() is None:
                        time.sleep(0.05)
                        most = max(most, engine.processor_seconds())
                    seconds[engine.name].append(time.perf_counter() - start)
                    used[engine.name].append(most - before)
                    engine("rm", "-f", "flood")
            self.row(f"{size // 1_000_000} MB of output, {driver}", seconds, "logs")
            self.row("  processor time of the engine", used, "logs")

    def case_ps(self) -> None:
        self.need()
        count = 20 if self.quick else 100
        for engine in self.engines:
            for _ in range(count):
                engine("create", *engine.run_options, self.big, "true")
        self.row(f"ps -a, {count} containers", self.measure(self.rounds(9), lambda e: e("ps", "-a")), "ps")
        self.row(f"rm -f, {count} containers", self.measure(1, lambda e: e("rm", "-f", *e("ps", "-aq").split())))

    def case_crowd(self) -> None:
        self.need()
        count = 20 if self.quick else 100
        for label, at_once in ((f"run -d, {count} in a loop", 1), (f"run -d, {count}, 8 at once", 8)):
            figures: dict[str, list[float]] = {}
            for engine in self.engines:
                ids: list[str] = []
                figures[engine.name] = [
                    _timed(lambda e=engine, i=ids, n=at_once: i.extend(crowd.start(e, self.big, count, n)))
                ]
                crowd.remove(engine, ids)
            self.row(label, figures)
        running = {engine.name: crowd.start(engine, self.big, count) for engine in self.engines}
        self.row(f"stats --no-stream, {count}", self.measure(3, lambda e: e("stats", "--no-stream")))
        for engine in self.engines:
            crowd.remove(engine, running[engine.name])

    def case_growth(self) -> None:
        self.need()
        counts = (3, 10, 30) if self.quick else (10, 30, 100, 300, 1000)
        figures = crowd.grow(self.engines, self.big, counts, self.rounds())
        crowd.draw(figures, self.scratch / "growth.svg" if self.quick else crowd.PLOT)

    def case_memory(self) -> None:
        self.need()
        count = 10 if self.quick else 50
        figures: dict[str, list[float]] = {}
        for engine in self.engines:
            before = engine.memory()
            ids = [engine("run", "-d", *engine.run_options, self.big, "sleep", "1000").strip() for _ in range(count)]
            time.sleep(5)  # limpet's monitors give their memory back after 2 s of silence
            figures[engine.name] = [float(engine.memory())]
            print(f"  {engine.name}: {(engine.memory() - before) / count / 2**20:.2f} MiB for each container")
            engine("rm", "-f", *ids)
        self.row(f"memory, {count} idle containers (PSS)", figures, scale=1 / 2**20, unit="MB")

    def case_rmi(self) -> None:
        figures = self.measure(
            self.rounds(),
            lambda e: e("rmi", "-f", self.big),
            lambda e: e("pull", *e.pull_options, self.big),
        )
        self.row("rmi, 1 layer of 200 MB", figures, "rmi")

    def case_build(self) -> None:
        self.need()
        place = self.scratch / "context"
        place.mkdir()
        count = 20 if self.quick else 100

        def build(engine: Engine, *options: str) -> None:
            engine("build", *engine.build_options, *options, "-q", "-t", "built", str(place))

        steps = "".join(f"RUN true # {number}\n" for number in range(count))
        (place / "Dockerfile").write_text(f"FROM {self.big}\n{steps}")
        self.row(f"build, {count} times RUN true", self.measure(3, lambda e: build(e, "--no-cache")), "steps")
        for number in range(20_000):
            path = place / f"tree/{number // 500}/{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"file {number}\n")
        steps = "".join(f"ENV A{number}={number}\n" for number in range(27))
        (place / "Dockerfile").write_text(f"FROM {self.big}\nCOPY tree /tree\n{steps}RUN true\n")
        for engine in self.engines:
            build(engine)
        self.row("build, 30 cached steps, 20,000 files", self.measure(self.rounds(), build), "cached")
        shutil.rmtree(place / "tree")
        with (place / "data").open("wb") as file:
            for _ in range(200):
                file.write(os.urandom(1 << 20))
        stages = "".join(f"FROM {self.big} AS s{number}\nRUN sleep 3; echo {number} >/out\n" for number in range(4))
        copies = "".join(f"COPY --from=s{number} /out /{number}\n" for number in range(4))
        (place / "Dockerfile").write_text(f"{stages}FROM {self.big}\n{copies}")
        self.row("build, 4 stages of 3 s at once", self.measure(3, lambda e: build(e, "--no-cache")))
        (place / "Dockerfile").write_text(f"FROM {self.big}\nCOPY data /\n")
        self.row("build, COPY of 200 MB", self.measure(self.rounds(), lambda e: build(e, "--no-cache")), "copy")

    def case_serve(self) -> None:
        serving.measure(self.scratch, self.rounds(11))

    def case_link(self) -> None:
        """Against a plain download of the same blob by curl: what the link gives to one TCP connection."""
        slow = link.make(100e6, 0.025)
        server = engines.registry(self.scratch, 5000, link.NEAR, slow.near)
        place = f"{link.NEAR}:5000"
        settings = self.scratch / "registries.toml"
        settings.write_text(f'[registry."{place}"]\nplain-http = true\n')
        manifest = json.loads(
            self.far(slow, "curl", "-s", "-H", f"Accept: {OCI_MANIFEST}", *_url(place, "manifests/1"))
        )
        blob = manifest["layers"][0]
        others = [e for e in self.engines if e.name != "docker"]  # its daemon can't be in a namespace of its own
        fetch = ["curl", "-s", "-o", "/dev/null", *_url(place, f"blobs/{blob['digest']}")]
        figures: dict[str, list[float]] = {name: [] for name in ("curl", *(e.name for e in others))}
        try:
            for _ in range(self.rounds()):
                start = time.perf_counter()
                self.far(slow, *fetch)
                figures["curl"].append(time.perf_counter() - start)
                for engine in others:
                    image = f"{place}/big:1"
                    engine("image", "prune", "-a", "-f")  # whatever other cases left has its layer
                    environment = {**engine.environment, "LIMPET_REGISTRIES": str(settings)}
                    start = time.perf_counter()
                    self.far(slow, *engine.command, "pull", *engine.pull_options, image, environment=environment)
                    figures[engine.name].append(time.perf_counter() - start)
        finally:
            server.terminate()
            server.wait()
            slow.close()
        medians = {name: statistics.median(values) for name, values in figures.items()}
        rate = {name: blob["size"] * 8 / seconds / 1e6 for name, seconds in medians.items()}
        words = ", ".join(f"{name} {value:.1f} Mbit/s" for name, value in rate.items())
        share = 100 * rate["limpet"] / rate["curl"]
        print(f"pull over 100 Mbit/s, 50 ms        {words}; {share:.0f} % of curl's (goal: 95 %)", flush=True)

    def far(self, slow: link.Link, *words: str, environment: dict[str, str] | None = None) -> str:
        return subprocess.run(
            [*slow.far, *words],
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


def _timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _url(place: str, path: str) -> list[str]:
    return [f"http://{place}/v2/big/{path}"]


def _unmount_below(scratch: Path) -> None:
    """docker and podman leave mounts when they end."""
    with open("/proc/self/mounts") as mounts:
        places = [line.split()[1] for line in mounts if line.split()[1].startswith(str(scratch))]
    for place in reversed(places):
        subprocess.run(["umount", "-l", place], check=False)


if __name__ == "__main__":
    main()
