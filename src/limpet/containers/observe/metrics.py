"""Figures of all containers for Prometheus, read when they are asked for. Names are cAdvisor's: dashboards go on.

`serve` answers GET /metrics and holds no state. What is not cAdvisor's begins with `limpet_`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from limpet.containers import state
from limpet.containers.monitor import healthcheck
from limpet.containers.observe import stats
from limpet.kernel import cgroup
from limpet.serving import listen, worker
from limpet.serving.limits import Limits
from limpet.units import seconds_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from limpet.containers.observe.stats import Sample
    from limpet.serving.listen import Address
    from limpet.store.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABELS = ("id", "name", "image")
_STATES = ("created", "running", "paused", "restarting", "exited")

# (name, what it is, figure of a usage, whether it only grows)
_USAGE: tuple[tuple[str, str, str, bool], ...] = (
    ("container_cpu_usage_seconds_total", "Processor time used", "cpu", True),
    ("container_cpu_cfs_throttled_seconds_total", "Time for which --cpus held it back", "throttled", True),
    ("container_memory_working_set_bytes", "Memory in use, without cache that can be dropped", "memory", False),
    ("container_memory_max_usage_bytes", "Most memory that was ever in use", "memory_peak", False),
    ("container_spec_memory_limit_bytes", "Limit of memory, 0 for none", "memory_limit", False),
    ("container_threads", "Processes and threads", "pids", False),
    ("container_threads_max", "Limit of processes and threads, 0 for none", "pids_limit", False),
    ("container_fs_reads_bytes_total", "Bytes read from block devices", "read", True),
    ("container_fs_writes_bytes_total", "Bytes written to block devices", "written", True),
    ("container_oom_events_total", "Processes killed for want of memory", "oom_kills", True),
)
_MICROSECONDS = ("cpu", "throttled")


def text(store: Store) -> bytes:
    """The page. A container that goes meanwhile is not in it."""
    registry = CollectorRegistry()
    registry.register(_Figures(store))
    return bytes(generate_latest(registry))


def serve(store: Store, address: Address) -> None:
    """Until SIGTERM or SIGINT. Raises Conflict, Refused for an address that can't be had."""
    address, (listener,) = listen.sockets(address, 1)
    print(f"serving metrics on {address if address.path else f'http://{address}/metrics'}", flush=True)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.rstrip("/") not in ("/metrics", ""):
            return web.Response(status=404, text="/metrics is here\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="GET is here\n", headers={"Allow": "GET, HEAD"})
        try:
            body = text(store)
        except Exception as e:  # the server goes on
            print(f"limpet: metrics: {e!r}", file=sys.stderr, flush=True)
            return web.Response(status=500, text="see the server's log\n")
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def main(stop: asyncio.Event) -> None:
        await worker.serve(handle, listener, limits=Limits(connections=64), stop=stop)

    try:
        worker.run(main)
    finally:
        if address.path:
            listen.remove(address.path)


class _Figures:
    """A collector of prometheus-client's: `collect` is called for each page."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Any]:
        return []  # or else `register` would collect once for the names

    def collect(self) -> Iterator[Any]:
        samples = stats.samples(self._store, state.all_containers(self._store), all=True)
        states = GaugeMetricFamily("limpet_containers", "Containers by state", labels=["state"])
        for name in _STATES:
            states.add_metric([name], sum(sample.status.state == name for sample in samples))
        yield states
        yield from _usages(samples)
        yield from _network(samples)
        yield from _pressure(samples)
        yield from self._lives(samples)

    def _lives(self, samples: list[Sample]) -> Iterator[Any]:
        seen = GaugeMetricFamily("container_last_seen", "When it was looked at", labels=_LABELS)
        started = GaugeMetricFamily("container_start_time_seconds", "When it was started", labels=_LABELS)
        restarts = CounterMetricFamily("limpet_container_restarts", "Restarts by its policy", labels=_LABELS)
        codes = GaugeMetricFamily("limpet_container_exit_code", "Of the last run, if it has ended", labels=_LABELS)
        healthy = GaugeMetricFamily("limpet_container_healthy", "1 healthy, 0 unhealthy or starting", labels=_LABELS)
        for sample in samples:
            labels = _labels(sample)
            seen.add_metric(labels, time.time())
            if sample.status.running:
                started.add_metric(labels, seconds_of(sample.status.started_at))
                found = healthcheck.read(self._store.container_path(sample.container.id))
                if found is not None:
                    healthy.add_metric(labels, found.get("Status") == "healthy")
            elif sample.status.state == "exited":
                codes.add_metric(labels, sample.status.exit_code)
            restarts.add_metric(labels, sample.status.restarts)
        yield from (seen, started, restarts, codes, healthy)


def _usages(samples: list[Sample]) -> Iterator[Any]:
    for name, what, figure, grows in _USAGE:
        family = (CounterMetricFamily if grows else GaugeMetricFamily)(name, what, labels=_LABELS)
        for sample in samples:
            if sample.usage is not None:
                value = getattr(sample.usage, figure)
                family.add_metric(_labels(sample), value / 10**6 if figure in _MICROSECONDS else max(value, 0))
        yield family


def _network(samples: list[Sample]) -> Iterator[Any]:
    """Of a network of its own, or of its sockets on the host's."""
    for place, name in enumerate(("receive", "transmit")):
        family = CounterMetricFamily(f"container_network_{name}_bytes_total", "Bytes on its network", labels=_LABELS)
        for sample in samples:
            if sample.usage is not None:
                family.add_metric(_labels(sample), sample.network[place])
        yield family


def _pressure(samples: list[Sample]) -> Iterator[Any]:
    family = GaugeMetricFamily(
        "limpet_container_pressure_ratio",
        "Part of the last ten seconds in which a process waited for it (PSI)",
        labels=(*_LABELS, "resource"),
    )
    for sample in samples:
        for resource, percent in (sample.usage.pressure if sample.usage is not None else {}).items():
            family.add_metric([*_labels(sample), resource], percent / 100)
    yield family


def _labels(sample: Sample) -> list[str]:
    container = sample.container
    return [cgroup.relative(container.group), container.name, container.image_name]
