"""The loopback of a new network namespace: down at first, and reachable when it was brought up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Alone = Callable[..., Any]


def test_loopback_comes_up(alone: Alone) -> None:
    def body():
        import socket

        from limpet.kernel import interfaces, process

        process.unshare(process.CLONE_NEWNET)
        server = socket.create_server(("", 0))

        def reachable():
            try:
                socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5).close()
            except OSError:
                return False
            return True

        before = reachable()
        interfaces.bring_up("lo")
        interfaces.bring_up("lo")
        try:
            interfaces.bring_up("nosuch0")
        except OSError as e:
            return before, reachable(), e.strerror

    assert alone(body) == [False, True, "No such device"]
