"""pyroute2's `IPRoute` and `NetlinkError`, without the rest: its package loads 347 modules, for 220 ms of a processor.

So the package itself is not executed; the modules that `IPRoute` needs are, for 120 ms, half of which are asyncio's.
The version is pinned, and one whose modules want the package gets it whole.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError
else:
    from importlib import import_module, util

    def _load() -> tuple[Any, Any]:
        spec = util.find_spec("pyroute2")
        if spec is not None and "pyroute2" not in sys.modules:
            sys.modules["pyroute2"] = util.module_from_spec(spec)
            try:
                import_module("pyroute2.iproute.linux")
            except (ImportError, AttributeError):
                for name in [name for name in sys.modules if name.partition(".")[0] == "pyroute2"]:
                    del sys.modules[name]
        errors = import_module("pyroute2.netlink.exceptions")
        return import_module("pyroute2.iproute.linux").IPRoute, errors.NetlinkError

    IPRoute, NetlinkError = _load()

__all__ = ["IPRoute", "NetlinkError"]
