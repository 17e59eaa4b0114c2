"""`limpet registry serve`: sockets, workers, and a registry in each."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from limpet.registry.server import metrics
from limpet.registry.server.app import App
from limpet.registry.server.storage import Storage
from limpet.serving import listen, worker, workers

if TYPE_CHECKING:
    import ssl

    from limpet.registry.server.config import Config
    from limpet.serving.listen import Address


def serve(config: Config, address: Address, context: ssl.SSLContext | None = None) -> None:
    """Serves until SIGTERM or SIGINT. Prints the address once it can be used."""
    Storage(config.storage)  # a directory that can't be used is said before a socket is bound
    address, listeners = listen.sockets(address, config.workers)
    measures = metrics.prepare(config.workers)
    scheme = "https" if context is not None else "http"
    shown = str(address) if address.path else f"{scheme}://{address}"
    print(f"serving {config.storage} on {shown}", flush=True)

    def work(number: int, parent: int | None) -> None:
        async def main(stop: asyncio.Event) -> None:
            app = App(config)
            tasks = [asyncio.create_task(app.housekeeping())] if number == 0 else []
            try:
                await worker.serve(
                    app.handle,
                    listeners[number],
                    limits=config.limits,
                    stop=stop,
                    done=app.done,
                    context=context,
                )
            finally:
                for task in tasks:
                    task.cancel()
                app.close()

        worker.run(main, parent)

    before = signal.getsignal(signal.SIGTERM)
    try:
        workers.run(work, config.workers, config.limits.grace)
    finally:
        metrics.clean(measures)
        signal.signal(signal.SIGTERM, before)
        if address.path:
            listen.remove(address.path)
    sys.stdout.flush()
