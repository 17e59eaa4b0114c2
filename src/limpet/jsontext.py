"""JSON for the hot path: the interpreter's own C scanner and encoder, without the `json` package.

`import json` costs 8 ms because it compiles regular expressions that only the pure-Python fallback and the
error messages need; `limpet run` has about 25 ms in all. `loads` and `dumps` give what `json.loads` and
`json.dumps(..., separators=(",", ":"))` give. Where `_json` is missing (another interpreter), `json` is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json
except ImportError:  # pragma: no cover - CPython always has it
    _json = None  # type: ignore[assignment]


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - the C scanner wants the attribute, and clears it

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


def loads(text: str | bytes) -> Any:
    """Parses one JSON document. Raises ValueError, also for trailing text and for nesting past the C stack."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = _scan(text, start)
        if text[end:].strip(" \t\r\n"):
            raise ValueError
    except Exception:  # the scanner reports through `json.decoder`, which must be imported: let it say what is wrong
        import json

        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
    return value


def dumps(value: Any, *, sort_keys: bool = False, indent: int | None = None) -> str:
    """Compact JSON, non-ASCII as \\u escapes. With `indent` the (slow to import) `json` package does it."""
    if _json is None or indent is not None:
        import json

        separators = (",", ":") if indent is None else (",", ": ")
        return json.dumps(value, sort_keys=sort_keys, indent=indent, separators=separators)
    encode = _json.make_encoder({}, _not_json, _json.encode_basestring_ascii, None, ":", ",", sort_keys, False, False)
    return "".join(encode(value, 0))


def _not_json(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


_context: Any = _Context
_scan: Any = _json.make_scanner(_context) if _json is not None else None
