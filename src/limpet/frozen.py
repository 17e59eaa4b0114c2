"""`dataclass` for frozen data, made in a quarter of the time: a build has ninety such classes to make when it starts.

The standard module compiles six functions for each class, and that was half of what a build took to start (60 ms of
110). Here it is one, `__init__`; the others are shared by all classes. Fields, `replace`, `asdict` and `astuple` of
`dataclasses` work on both alike. What is not `frozen=True, slots=True`, or asks for more, is made by the standard one.
"""

from __future__ import annotations

import dataclasses
import inspect
from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from typing import Any
else:

    def dataclass(cls=None, /, **options):
        """As `dataclasses.dataclass`."""

        def make(cls):
            fields = _fields(cls) if options == _FAST else None
            return dataclasses.dataclass(cls, **options) if fields is None else _made(cls, fields)

        return make if cls is None else make(cls)


_FAST = {"frozen": True, "slots": True}
_SPECIAL = ("__post_init__", "__slots__", "__init__", "__setattr__", "__delattr__", "__getstate__", "__setstate__")
_MISSING = dataclasses.MISSING
# From a class that the standard module made: since Python 3.12 there are more of them.
_PARAMS = dataclasses.dataclass(**_FAST)(type("_Sample", (), {})).__dataclass_params__  # type: ignore[attr-defined]


def _fields(cls: type) -> dict[str, dataclasses.Field[Any]] | None:
    """By name, in order; None if there is anything that only the standard module does."""
    if cls.__bases__ != (object,) or any(name in cls.__dict__ for name in _SPECIAL):
        return None
    found = {}
    with_default = False
    for name, kind in inspect.get_annotations(cls).items():
        if "ClassVar" in str(kind) or "InitVar" in str(kind) or "KW_ONLY" in str(kind):
            return None
        default = cls.__dict__.get(name, _MISSING)
        field: Any = default if isinstance(default, dataclasses.Field) else dataclasses.field(default=default)
        plain = field.init and field.repr and field.compare and field.hash is None and field.kw_only is _MISSING
        optional = field.default is not _MISSING or field.default_factory is not _MISSING
        if not plain or (with_default and not optional) or type(field.default).__hash__ is None:
            return None  # among them what the standard module says is wrong
        with_default = optional
        field.name, field.type, field.kw_only = name, kind, False
        field._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
        found[name] = field
    return found or None


def _made(cls: Any, fields: dict[str, dataclasses.Field[Any]]) -> type:
    names = tuple(fields)
    space = {name: value for name, value in cls.__dict__.items() if name not in fields}
    for name in ("__dict__", "__weakref__"):
        space.pop(name, None)
    own = {"__repr__": _repr, "__eq__": _eq, "__hash__": _hash}
    space = {
        **own,
        **{name: value for name, value in space.items() if value is not None or name not in own},
        "__slots__": names,
        "__match_args__": names,
        "__dataclass_fields__": fields,
        "__dataclass_params__": _PARAMS,
        "__setattr__": _set,
        "__delattr__": _delete,
        "__getstate__": _state,
        "__setstate__": _restore,
        "__init__": None,
        "_limpet_values": staticmethod(attrgetter(*names)) if len(names) > 1 else _one(names[0]),
    }
    made: Any = type(cls)(cls.__name__, cls.__bases__, space)
    made.__qualname__ = cls.__qualname__
    made.__init__ = _init(made, fields)
    return made  # type: ignore[no-any-return]


def _init(made: Any, fields: dict[str, dataclasses.Field[Any]]) -> Any:
    """The one function that is compiled: what it sets, it sets by the slots, past `__setattr__`."""
    space: dict[str, Any] = {"_made": _NOTHING}
    arguments, lines = [], []
    for name, field in fields.items():
        value, argument = name, name
        if field.default_factory is not _MISSING:
            space[f"_f_{name}"] = field.default_factory
            argument, value = f"{name}=_made", f"_f_{name}() if {name} is _made else {name}"
        elif field.default is not _MISSING:
            space[f"_d_{name}"] = field.default
            argument = f"{name}=_d_{name}"
        space[f"_s_{name}"] = getattr(made, name).__set__
        arguments.append(argument)
        lines.append(f"\n _s_{name}(self,{value})")
    exec(f"def __init__(self,{','.join(arguments)}):{''.join(lines)}", space)
    init = space["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    init.__module__ = made.__module__
    return init


_NOTHING = object()


def _one(name: str) -> Any:
    get = attrgetter(name)
    return staticmethod(lambda self: (get(self),))


def _repr(self: Any) -> str:
    fields = zip(self.__slots__, self._limpet_values(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in fields)})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._limpet_values(self) == self._limpet_values(other)


def _hash(self: Any) -> int:
    return hash(self._limpet_values(self))


def _set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return list(self._limpet_values(self))


def _restore(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)
