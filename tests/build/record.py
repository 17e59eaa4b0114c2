"""`python -m tests.build.record [CASE…]`: builds the cases with buildah and docker and writes `recorded.json` anew.

Needs root, Debian's buildah, docker.io, skopeo; about five minutes. The file says which versions it is of.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.build import bases, corpus
from tests.build.contents import read


def main(only: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="corpus-", dir="/var/tmp") as text:
        place = Path(text)
        archive = bases.make(place)
        base = bases.files(archive, place / "base")
        daemon = subprocess.Popen(
            [
                *("dockerd", "--iptables=false", "--bridge=none", "-H", f"unix://{place}/docker.sock"),
                *("--data-root", place / "d", "--exec-root", place / "x", "-p", place / "pid"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        buildah = corpus.Buildah(place, archive)
        try:
            docker = corpus.Docker(place / "docker.sock")
            while docker.run("version").returncode != 0:
                time.sleep(0.2)
            done = docker.run("load", "-q", "-i", archive)
            assert done.returncode == 0, done.stderr
            found: dict[str, Any] = json.loads(corpus.RECORDED.read_text()) if only else {"cases": {}}
            found["versions"] = {"buildah": buildah.version(), "docker": docker.version()}
            for name in only or corpus.cases():
                found["cases"][name] = {}
                for engine in (buildah, docker):
                    here = place / f"{name}-{engine.name}"
                    here.mkdir()
                    case = corpus.lay_out(name, here)
                    code, errors = engine.build(case, here / "made")
                    print(name, engine.name, code, errors.strip().splitlines()[-1:] if code else "")
                    made: dict[str, Any] = {"failed": last_line(errors)}
                    if code == 0:
                        made = corpus.reduced(read(here / "made"), base)
                    if "Hostname" in made.get("config", {}):
                        made["config"]["Hostname"] = "0" * 12  # another one each time
                    found["cases"][name][engine.name] = made
                    subprocess.run(["rm", "-rf", here], check=True)
        finally:
            daemon.terminate()
            daemon.wait()
            buildah.run("rmi", "-a", "-f")
    corpus.RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


if __name__ == "__main__":
    main(sys.argv[1:])
