"""The one function of `functools` that `_sqlite3` uses, over the same C type, without that module's imports."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import _lru_cache_wrapper
    from typing import Any
else:
    from _functools import _lru_cache_wrapper


def lru_cache(maxsize: int) -> Callable[[Any], Any]:
    """As `functools.lru_cache(maxsize)`; `cache_info` gives a plain tuple."""

    wrapper: Any = _lru_cache_wrapper

    def decorate(function: Any) -> Any:
        return wrapper(function, maxsize, False, _info)

    return decorate


def _info(*values: int) -> tuple[int, ...]:
    return values
