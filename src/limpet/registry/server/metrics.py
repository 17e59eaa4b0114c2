"""`/metrics` in Prometheus's text; several workers add up through files of prometheus-client's."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limpet.registry.server.storage import Storage

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def prepare(workers: int) -> str:
    """To be called before the workers begin, and before prometheus-client is imported. What `clean` wants."""
    if workers == 1:
        return ""
    path = tempfile.mkdtemp(prefix="limpet-metrics-")
    os.environ[_DIRECTORY] = path
    return path


def clean(path: str) -> None:
    if path:
        os.environ.pop(_DIRECTORY, None)
        shutil.rmtree(path, ignore_errors=True)


class Metrics:
    """What is counted, by method, kind of path and status."""

    def __init__(self, storage: Storage) -> None:
        import prometheus_client as client

        self._client = client
        self._registry = client.CollectorRegistry()
        self._storage = storage
        names = ("method", "kind", "status")
        self._requests = client.Counter("limpet_registry_requests", "Requests answered", names, registry=self._registry)
        self._sent = client.Counter(
            "limpet_registry_sent_bytes", "Bytes of bodies sent", ["kind"], registry=self._registry
        )
        self._seconds = client.Histogram(
            "limpet_registry_request_seconds",
            "Time to answer, whole body included",
            ["kind"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self._registry,
        )
        self._known: dict[tuple[str, str, int], tuple[Any, Any, Any]] = {}

    def count(self, method: str, kind: str, status: int, size: int, seconds: float) -> None:
        key = (method, kind, status)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (
                self._requests.labels(method, kind, str(status)),
                self._sent.labels(kind),
                self._seconds.labels(kind),
            )
        found[0].inc()
        if size:
            found[1].inc(size)
        found[2].observe(seconds)

    def text(self) -> bytes:
        """All workers together, and how much room the storage has."""
        registry = self._registry
        if _DIRECTORY in os.environ:
            from prometheus_client import multiprocess

            registry = self._client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        try:
            state = os.statvfs(self._storage.root)
        except FileNotFoundError:  # what is served lies elsewhere
            return self._client.generate_latest(registry)
        room = (
            "# HELP limpet_registry_storage_free_bytes Room that the storage has left\n"
            "# TYPE limpet_registry_storage_free_bytes gauge\n"
            f"limpet_registry_storage_free_bytes {state.f_bavail * state.f_frsize}\n"
        )
        return self._client.generate_latest(registry) + room.encode()
