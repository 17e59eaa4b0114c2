"""`limpet registry serve`: sockets, workers, and a registry in each."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from limpet.registry.server import metrics
from limpet.registry.server.app import App
from limpet.registry.server.storage import Storage
from limpet.registry.server.users import Users
from limpet.serving import listen, tls, worker, workers

if TYPE_CHECKING:
    from limpet.registry.server.config import Config
    from limpet.serving.listen import Address


def serve(config: Config, address: Address, certificate: tuple[str, str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, with `certificate` (file, key file) over TLS.

    Prints the address once it can be used. Raises LimpetError for what can't work before it binds it.
    """
    Storage(config.storage, make=config.images is None)
    if config.passwords:
        Users(config.passwords, config.access)
    context = tls.context(*certificate) if certificate is not None else None
    address, listeners = listen.sockets(address, config.workers)
    measures = metrics.prepare(config.workers)
    scheme = "https" if context is not None else "http"
    shown = str(address) if address.path else f"{scheme}://{address}"
    what = "this machine's images" if config.images is not None else config.storage
    print(f"serving {what} on {shown}", flush=True)

    def work(number: int, parent: int | None) -> None:
        async def main(stop: asyncio.Event) -> None:
            app = App(config)
            tasks = [asyncio.create_task(app.housekeeping())] if number == 0 else []
            if context is not None and certificate is not None:
                tasks.append(asyncio.create_task(tls.renew(context, *certificate)))
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
