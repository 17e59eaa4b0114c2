"""`limpet metrics serve`, read as Prometheus reads it: its own parser, over a real connection."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from limpet.kernel import cgroup, controllers

pytestmark = pytest.mark.skipif(
    cgroup.root() is None or not controllers.version("memory"), reason="needs the controller memory"
)


@pytest.fixture
def url(limpet: Any, busybox: str) -> Iterator[str]:
    command = [*limpet.command, "metrics", "serve", "--addr", "127.0.0.1:0"]
    with subprocess.Popen(command, env=limpet.environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.terminate()
        assert server.wait(20) == 0


def figures(url: str) -> dict[tuple[str, str], float]:
    """(metric, name of the container or state) → value."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, sample.labels.get("name") or sample.labels.get("state", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_figures_of_containers(limpet: Any, url: str, busybox: str) -> None:
    assert figures(url)["limpet_containers", "running"] == 0
    options = ("-m", "64m", "--pids-limit", "30", "--health-cmd", "true", "--health-interval", "1h")
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    limpet("run", "--name", "job", busybox, "sh", "-c", "exit 3", check=False)
    found = figures(url)
    assert found["limpet_containers", "running"] == found["limpet_containers", "exited"] == 1
    assert found["container_spec_memory_limit_bytes", "web"] == 64 << 20
    assert 0 < found["container_memory_working_set_bytes", "web"] < 64 << 20
    assert 0 < found["container_cpu_usage_seconds_total", "web"] < 10
    assert (found["container_threads", "web"], found["container_threads_max", "web"]) == (2, 30)
    assert found["limpet_container_healthy", "web"] == 0
    assert found["limpet_container_exit_code", "job"] == 3
    assert ("container_threads", "job") not in found
    assert found["container_network_receive_bytes_total", "web"] == 0  # it is silent
    limpet("pause", "web")
    assert figures(url)["limpet_containers", "paused"] == 1
    limpet("rm", "-f", "web", "job")
    assert not [name for name in figures(url) if name[1] in ("web", "job")]


def test_other_paths_and_methods(url: str) -> None:
    for target, method, code in ((url + "x", "GET", 404), (url, "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(target, method=method, data=None), timeout=20)
        assert caught.value.code == code
        caught.value.close()
