"""The standard library of Bake files (docker/buildx docs/bake-stdlib.md), but for rsadecrypt.

`try` and `can` are the evaluator's, as their arguments may fail; `convert` is, since its second one is a type.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

from limpet.build.bake.hcl import evaluate, texts, values
from limpet.build.bake.hcl.formats import format_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.bake.hcl.syntax import Value


def absolute(number: Value) -> Value:
    found = values.number(number)
    return -found if found < 0 else found


def coalesce(*found: Value) -> Value:
    for each in found:
        if each is not None:
            return each
    raise ValueError("all arguments are null")


def coalescelist(*found: Value) -> Value:
    for each in found:
        if each:
            return values.items(each)
    raise ValueError("all lists are empty")


def concat(*found: Value) -> list[Any]:
    return [each for one in found for each in values.items(one)]


def contains(found: Value, wanted: Value) -> bool:
    return any(values.equal(each, wanted) for each in values.items(found))


def element(found: Value, place: Value) -> Value:
    elements = values.items(found)
    if not elements:
        raise ValueError("the list is empty")
    if values.whole(place) < 0:
        raise ValueError("a negative index")
    found = elements[values.whole(place) % len(elements)]
    return found


def flatten(found: Value) -> list[Any]:
    flat: list[Any] = []
    for each in values.items(found):
        flat += flatten(each) if isinstance(each, list) else [each]
    return flat


def chunklist(found: Value, size: Value) -> list[Any]:
    elements, count = values.items(found), values.whole(size)
    if count < 0:
        raise ValueError("a negative size")
    return [elements[at : at + count] for at in range(0, len(elements), count)] if count else [elements]


def length(found: Value) -> int:
    if isinstance(found, list | dict):
        return len(found)
    raise ValueError(f"{values.kind(found)} where a list or an object is needed: strlen counts letters")


def lookup(found: Value, key: Value, *other: Value) -> Value:
    known = values.mapping(found)
    if values.text(key) in known:
        found = known[values.text(key)]
        return found
    if other:
        return other[0]
    raise ValueError(f"no key '{values.text(key)}'")


def merge(*found: Value) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for each in found:
        if each is not None:
            merged |= values.mapping(each)
    return merged


def number_range(*bounds: Value) -> list[Any]:
    numbers = [Decimal(values.number(each)) for each in bounds]
    if not 1 <= len(numbers) <= 3:
        raise ValueError("takes one to three numbers")
    start, end = (Decimal(0), numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = numbers[2] if len(numbers) == 3 else Decimal(1 if start <= end else -1)
    if not step or (end - start) * step < 0:
        raise ValueError("the step leads away from the end")
    if abs((end - start) / step) > values.MAX_ITEMS:
        raise ValueError(f"more than {values.MAX_ITEMS} numbers")
    found = []
    while (start < end) if step > 0 else (start > end):
        found.append(values.simple(start))
        start += step
    return found


def part(found: Value, start: Value, end: Value) -> list[Any]:
    elements, begin, stop = values.items(found), values.whole(start), values.whole(end)
    if not 0 <= begin <= stop <= len(elements):
        raise ValueError(f"no elements {begin} to {stop} in a list of {len(elements)}")
    return elements[begin:stop]


def sort(found: Value) -> list[Any]:
    return sorted(values.text(each) for each in values.items(found))


def indexof(found: Value, wanted: Value) -> int:
    for at, each in enumerate(values.items(found)):
        if values.equal(each, wanted):
            return at
    raise ValueError("the list has no such element")


def hasindex(found: Value, key: Value) -> bool:
    try:
        evaluate.index(found, key)
    except ValueError:
        return False
    return True


def zipmap(keys: Value, found: Value) -> dict[str, Any]:
    names, elements = values.items(keys), values.items(found)
    if len(names) != len(elements):
        raise ValueError(f"{len(names)} keys and {len(elements)} values")
    return {values.text(key): value for key, value in zip(names, elements, strict=True)}


def formatlist(text: Value, *found: Value) -> list[Any]:
    counts = {len(each) for each in found if isinstance(each, list)}
    if len(counts) > 1:
        raise ValueError("the lists are not of one length")
    count = counts.pop() if counts else 1
    return [format_text(text, *(each[at] if isinstance(each, list) else each for each in found)) for at in range(count)]


def setproduct(*found: Value) -> list[Any]:
    lists = [values.items(each) for each in found]
    if math.prod(map(len, lists)) > values.MAX_ITEMS:
        raise ValueError(f"more than {values.MAX_ITEMS} combinations")
    return [list(each) for each in itertools.product(*lists)]


def intersection(*found: Value) -> list[Any]:
    first, *others = map(values.items, found)
    return values.member_set([each for each in first if all(contains(one, each) for one in others)])


def subtract_sets(one: Value, other: Value) -> list[Any]:
    return values.member_set([each for each in values.items(one) if not contains(other, each)])


def symmetric(*found: Value) -> list[Any]:
    result: list[Any] = []
    for each in found:
        result = subtract_sets(result, each) + subtract_sets(each, result)
    return values.member_set(result)


def parseint(text: Value, base: Value) -> int:
    return int(values.text(text), values.whole(base))


def power(base: Value, exponent: Value) -> Value:
    one, other = values.number(base), values.number(exponent)
    if isinstance(one, int) and isinstance(other, int) and 0 <= other <= 4096 and abs(one) < 1 << 64:
        return one**other if other * max(1, one.bit_length()) < 4096 else _too_large()
    return values.simple(values.ARITHMETIC.power(Decimal(one), Decimal(other)))


def _too_large() -> Value:
    raise ValueError("a number that is too large")


def logarithm(number: Value, base: Value) -> Value:
    found = Decimal(math.log(values.number(number)) / math.log(values.number(base)))
    return values.simple(found.quantize(Decimal("1e-12")))


def rounded(direction: str) -> Callable[[Value], Value]:
    return lambda number: int(Decimal(values.number(number)).to_integral_value(direction))


def _network(prefix: Value) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(values.text(prefix), strict=False)


def cidrsubnet(prefix: Value, bits: Value, number: Value) -> str:
    network, more, at = _network(prefix), values.whole(bits), values.whole(number)
    length = network.prefixlen + more
    if more < 0 or length > network.max_prefixlen or not 0 <= at < 1 << more:
        raise ValueError(f"{network} has no subnet {at} of {more} bits more")
    base = int(network.network_address) + (at << (network.max_prefixlen - length))
    return f"{type(network.network_address)(base)}/{length}"


def cidrsubnets(prefix: Value, *bits: Value) -> list[Any]:
    network = _network(prefix)
    at = int(network.network_address)
    found = []
    for each in bits:
        length = network.prefixlen + values.whole(each)
        if not network.prefixlen < length <= network.max_prefixlen:
            raise ValueError(f"{network} has no room for {values.whole(each)} bits more")
        size = 1 << (network.max_prefixlen - length)
        at = -(-at // size) * size
        if at + size > int(network.broadcast_address) + 1:
            raise ValueError(f"{network} has no room for all of them")
        found.append(f"{type(network.network_address)(at)}/{length}")
        at += size
    return found


def cidrhost(prefix: Value, number: Value) -> str:
    network, at = _network(prefix), values.whole(number)
    if not -network.num_addresses <= at < network.num_addresses:
        raise ValueError(f"{network} has no host {at}")
    return str(network[at])


def _numbers(found: Sequence[Value]) -> list[int | Decimal]:
    if not found:
        raise ValueError("needs a number")
    return [values.number(each) for each in found]


def _compare(operator: str) -> Callable[[Value, Value], bool]:
    def compare(one: Value, other: Value) -> bool:
        left, right = values.number(one), values.number(other)
        return {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator]

    return compare


def _calculate(operator: str) -> Callable[[Value, Value], Value]:
    return lambda one, other: evaluate.arithmetic(operator, one, other)


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    **texts.FUNCTIONS,
    "absolute": absolute,
    "add": _calculate("+"),
    "and": lambda one, other: values.truth(one) and values.truth(other),
    "ceil": rounded(ROUND_CEILING),
    "chunklist": chunklist,
    "cidrhost": cidrhost,
    "cidrnetmask": lambda prefix: str(_network(prefix).netmask),
    "cidrsubnet": cidrsubnet,
    "cidrsubnets": cidrsubnets,
    "coalesce": coalesce,
    "coalescelist": coalescelist,
    "compact": lambda found: [each for each in values.items(found) if each not in ("", None)],
    "concat": concat,
    "contains": contains,
    "distinct": lambda found: values.distinct(values.items(found)),
    "divide": _calculate("/"),
    "element": element,
    "equal": values.equal,
    "flatten": flatten,
    "floor": rounded(ROUND_FLOOR),
    "format": format_text,
    "formatlist": formatlist,
    "greaterthan": _compare(">"),
    "greaterthanorequalto": _compare(">="),
    "hasindex": hasindex,
    "index": evaluate.index,
    "indexof": indexof,
    "int": lambda number: int(values.number(number)),
    "keys": lambda found: sorted(values.mapping(found)),
    "length": length,
    "lessthan": _compare("<"),
    "lessthanorequalto": _compare("<="),
    "log": logarithm,
    "lookup": lookup,
    "max": lambda *found: max(_numbers(found)),
    "merge": merge,
    "min": lambda *found: min(_numbers(found)),
    "modulo": _calculate("%"),
    "multiply": _calculate("*"),
    "negate": lambda number: evaluate.arithmetic("-", 0, number),
    "not": lambda value: not values.truth(value),
    "notequal": lambda one, other: not values.equal(one, other),
    "or": lambda one, other: values.truth(one) or values.truth(other),
    "parseint": parseint,
    "pow": power,
    "range": number_range,
    "reverselist": lambda found: values.items(found)[::-1],
    "sethaselement": contains,
    "setintersection": intersection,
    "setproduct": setproduct,
    "setsubtract": subtract_sets,
    "setsymmetricdifference": symmetric,
    "setunion": lambda *found: values.member_set(concat(*found)),
    "signum": lambda number: (values.number(number) > 0) - (values.number(number) < 0),
    "slice": part,
    "sort": sort,
    "subtract": _calculate("-"),
    "values": lambda found: values.items(values.mapping(found)),
    "zipmap": zipmap,
}
