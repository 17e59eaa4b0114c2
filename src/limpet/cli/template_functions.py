"""The functions of templates: Go's (and, or are in `template`: they stop early) and Docker's (docker/cli `templates`).

Values are what JSON gives. A function raises Mistake, or ValueError and its like, which the caller words.
"""

from __future__ import annotations

from limpet.cli.template_parser import Mistake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_WIDEST = 10_000  # of padding: a template may come from a file that somebody else wrote


class Missing:
    """A key that a map lacks."""


MISSING = Missing()


def show(value: Any) -> str:
    """As Go's fmt prints what JSON gives: maps as map[a:1 b:2], lists as [1 2]."""
    if value is None:
        return "<nil>"
    if isinstance(value, Missing):
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and type(value).__str__ is not dict.__str__:
        return str(value)  # Go's Stringer: it has a text of its own
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return _show_float(value)
    return str(value)


def _show_float(value: float) -> str:
    """The fewest digits that say it, with an exponent from a million on: strconv's 'g'."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = len(whole) - 1 + int(power or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    if not digits:
        return "0"
    if -4 <= exponent < 6:
        return f"{sign}{abs(value):.{max(0, len(digits) - 1 - exponent)}f}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def brief(value: Any) -> str:
    """For a message: the beginning, on one line."""
    return " ".join(show(value)[:40].split())


def truth(value: Any) -> bool:
    return not isinstance(value, Missing) and bool(value)


def call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError, MemoryError) as e:
        raise Mistake(f"error calling {name}: {e}") from None


class NilList(list["Any"]):
    """Go's nil slice: `[]` as text, null as JSON."""


class NilMap(dict[str, "Any"]):
    """Go's nil map: `map[]` as text, null as JSON."""


# Fields of the Engine API's types that are slices or maps there (api/types/container, image, volume).
_LISTS = frozenset(
    "Aliases Binds BlkioWeightDevice CapAdd CapDrop Cmd DeviceCgroupRules DeviceRequests Devices Dns DnsOptions"
    " DnsSearch Entrypoint Env ExecIDs ExtraHosts GroupAdd Links MaskedPaths OnBuild ReadonlyPaths RepoDigests RepoTags"
    " SecurityOpt Shell Ulimits VolumesFrom".split(" ")
)
_MAPS = frozenset("DriverOpts ExposedPorts Labels Options Sysctls Tmpfs Volumes".split(" "))


def typed(value: Any, name: str = "") -> Any:
    """A document of `inspect` as Docker's program holds it: null in a field of these names is an empty list or map."""
    if value is None:
        return NilList() if name in _LISTS else NilMap() if name in _MAPS else None
    if isinstance(value, dict):
        # Below Labels and the like the keys are the user's.
        return {key: item if name in _MAPS else typed(item, key) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """For JSON as Go writes it: what is nil is null, and a whole float has no fraction."""
    if isinstance(value, Missing | NilList | NilMap):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else value


def _json(value: Any) -> str:
    from limpet import jsontext

    value = _plain(value)
    text = jsontext.dumps(value)
    if "\\u" not in text:
        return text
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, MISSING)
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value.encode("utf-8", "surrogatepass")[key] if isinstance(value, str) else value[key]
        else:
            raise TypeError(f"can't index {brief(value)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise IndexError("index out of range")
    return value[low:high]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return type(value).__name__


def _comparable(left: Any, right: Any) -> None:
    nothing = (None, MISSING)
    if left not in nothing and right not in nothing and _kind(left) != _kind(right):
        raise TypeError("incompatible types for comparison")


def _equal(first: Any, *rest: Any) -> bool:
    if not rest:
        raise TypeError("missing argument for comparison")
    for other in rest:
        _comparable(first, other)
        if first == other:
            return True
    return False


def _compare(act: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        _comparable(left, right)
        return act(left, right)

    return compare


def _print(*values: Any) -> str:
    """A space between two operands of which neither is a string, as fmt.Sprint."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += show(value)
    return out


def _printf(text: str, *values: Any) -> str:
    """%s %v %d %q %x %X %o %b %c %f %e %g %t %%, with flags, width and precision."""
    out: list[str] = []
    rest = list(values)
    at = 0
    while at < len(text):
        if text[at] != "%":
            out.append(text[at])
            at += 1
            continue
        end = at + 1
        while end < len(text) and text[end] in "+-# 0123456789.":
            end += 1
        verb, flags = text[end : end + 1], text[at + 1 : end]
        at = end + 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_formatted(verb, flags, rest.pop(0)))
    if rest:
        out.append("%!(EXTRA " + ", ".join(f"{_go_type(value)}={show(value)}" for value in rest) + ")")
    return "".join(out)


def _formatted(verb: str, flags: str, value: Any) -> str:
    if any(len(number) > 4 and int(number) > _WIDEST for number in flags.strip("+-# 0").split(".") if number.isdigit()):
        raise ValueError(f"a width of more than {_WIDEST}")
    plain = flags.replace("+", "").replace("#", "").replace(" ", "").lstrip("0")
    is_text = value is not None and not isinstance(value, bool | int | float)
    if verb == "v" or (verb == "s" and is_text) or (verb == "t" and isinstance(value, bool)):
        return f"%{plain}s" % show(value)
    if verb == "q" and isinstance(value, str):
        return f"%{plain}s" % _json(value)
    if verb in "xX" and isinstance(value, str):
        digits = value.encode("utf-8", "surrogatepass").hex()
        return f"%{plain}s" % (digits if verb == "x" else digits.upper())
    if isinstance(value, int) and not isinstance(value, bool):
        if verb in "dxXo":
            return f"%{flags}{verb}" % value
        if verb == "b":
            return f"%{plain}s" % f"{value:b}"
        if verb == "c":
            return f"%{plain}s" % chr(value)
    if isinstance(value, float) and verb in "fFeEgG":
        return f"%{flags}{verb}" % value
    return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({_go_type(value)}={show(value)})"


def _go_type(value: Any) -> str:
    names = {"str": "string", "float": "float64", "dict": "map[string]interface {}", "list": "[]interface {}"}
    return names.get(type(value).__name__, type(value).__name__)


def _pad(text: Any, left: int, right: int) -> str:
    if max(left, right) > _WIDEST:
        raise ValueError(f"a width of more than {_WIDEST}")
    shown = show(text)
    return " " * left + shown + " " * right if shown else ""


def _truncate(text: Any, count: int) -> str:
    if count < 0:
        raise ValueError("a negative length")
    return show(text)[:count]


def _split(text: Any, separator: str) -> list[str]:
    return show(text).split(separator) if separator else list(show(text))


def _join(items: Any, separator: str) -> str:
    if isinstance(items, str):
        raise TypeError("a string is no list")
    return separator.join(show(item) for item in items or [])


def _html(*values: Any) -> str:
    text = _print(*values)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text


def _query(*values: Any) -> str:
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    encoded = _print(*values).encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if chr(byte) in safe else "+" if byte == 32 else f"%{byte:02X}" for byte in encoded)


def _title(text: Any) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in show(text).split(" "))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": _json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda text: show(text).lower(),
    "upper": lambda text: show(text).upper(),
    "pad": _pad,
    "truncate": _truncate,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": _print,
    "printf": _printf,
    "len": len,
    "index": _index,
    "slice": _slice,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _compare(lambda left, right: left < right),
    "le": _compare(lambda left, right: left <= right),
    "gt": _compare(lambda left, right: left > right),
    "ge": _compare(lambda left, right: left >= right),
    "html": _html,
    "urlquery": _query,
}
