"""The JSON form of a body (hashicorp/hcl json/spec.md): objects are blocks where there are such, texts templates."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from limpet.build.bake.hcl.parser import parse_template
from limpet.build.bake.hcl.syntax import Block, Body, Literal, Object, Set, Source, Tuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.bake.hcl.syntax import Expression, Template

_COMMENT = "//"


def parse(text: str, name: str, blocks: Mapping[str, Mapping[str, Any]]) -> Body:
    """`blocks`: kinds of blocks with one label, each with its own unlabelled ones. Raises Wrong."""
    source = Source(name, text)
    try:
        whole = json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as e:
        raise source.wrong(e.pos, f"not JSON: {e.msg}") from None
    except RecursionError:
        raise source.wrong(0, "not JSON: too many levels within each other") from None
    if not isinstance(whole, dict):
        raise source.wrong(0, "the file is not a JSON object")
    return _body(whole, source, blocks, labels=1)


def _body(value: dict[str, Any], source: Source, blocks: Mapping[str, Any], labels: int) -> Body:
    attributes: dict[str, Set] = {}
    found: list[Block] = []
    for key, inner in value.items():
        if key == _COMMENT:
            continue
        if key not in blocks:
            attributes[key] = Set(key, _expression(inner, source), source)
            continue
        for each in inner if isinstance(inner, list) else [inner]:
            if not isinstance(each, dict):
                raise source.wrong(0, f"'{key}' is not an object")
            if not labels:
                found.append(Block(key, (), _body(each, source, {}, 0), source))
                continue
            for label, bodies in each.items():
                for body in bodies if isinstance(bodies, list) else [bodies]:
                    if not isinstance(body, dict):
                        raise source.wrong(0, f"{key} '{label}' is not an object")
                    found.append(Block(key, (label,), _body(body, source, blocks[key], 0), source))
    return Body(attributes, tuple(found))


def _expression(value: Any, source: Source) -> Expression:
    if isinstance(value, str):
        found = parse_template(value, source)
        return found if any(not isinstance(part, Literal) for part in found.parts) else Literal(_plain(found))
    if isinstance(value, list):
        return Tuple(tuple(_expression(each, source) for each in value))
    if isinstance(value, dict):
        items = [(_expression(key, source), _expression(each, source)) for key, each in value.items()]
        return Object(tuple(items))
    if isinstance(value, Decimal) and value == value.to_integral_value() and value.is_finite():
        return Literal(int(value))
    return Literal(value)


def _plain(found: Template) -> str:
    return "".join(str(part.value) for part in found.parts if isinstance(part, Literal))
