"""Arrows go down only: a room imports from rooms below it, in functions and for types too (docs/architecture.md)."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src/limpet"
# From the top to the bottom. `api` and `lazy` have their places before they are built.
ROOMS = "cli api compose build containers images registry serving lazy layers network store oci kernel".split()
FREE = ("errors", "frozen", "jsontext", "nearest", "progress", "units")
"""Modules of no room. Rooms may import them, and they import no room."""

NAMED_LIKE_DRAWERS = re.compile(r"(manager|helper|util)s?$", re.IGNORECASE)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room_of(path: Path) -> str:
    """ "" for a module of no room."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name); of `from limpet import x` the name is `limpet.x`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ROOMS)
    assert {"cli", "containers", "images", "layers", "store", "oci", "kernel"} <= folders


def test_every_room_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in modules() if ast.get_docstring(tree(path)) is None]
    assert silent == []


def test_rooms_import_only_from_below() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for line, name in imports(path):
            at = f"{path.relative_to(ROOT)}:{line}: {name}"
            if name.startswith("."):
                wrong.append(f"{at}: a relative import")
            elif name.split(".")[0] != "limpet":
                continue
            if name == "limpet":
                continue  # for its version, or where it is
            target = name.split(".")[1]
            if target in ROOMS:
                if not room and path.name != "__main__.py":
                    wrong.append(f"{at}: a module of no room imports from a room")
                elif room and ROOMS.index(target) < ROOMS.index(room):
                    wrong.append(f"{at}: {target} is above {room}")
            elif target not in FREE and target not in ("__version__", "SOURCE"):
                wrong.append(f"{at}: no room and no module that is free for all")
    assert wrong == []


def test_only_the_kernel_room_makes_system_calls_by_number() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in modules()
        if room_of(path) != "kernel"
        for line, name in imports(path)
        if name.split(".")[0] in ("ctypes", "_ctypes", "cffi") or name.startswith("limpet.kernel.sys.")
    ]
    assert wrong == []


def test_no_drawers() -> None:
    """A module or class that is a manager, helper or util has no purpose that its name could say."""
    named = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules()
        for name in (
            path.stem,
            *(node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)),
        )
        if NAMED_LIKE_DRAWERS.search(name)
    ]
    assert named == []


def test_the_documentation_draws_the_same_rooms() -> None:
    drawn = re.findall(r"^\| ((?:`[a-z]+/`(?:, )?)+) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    names = [name for row in drawn for name in re.findall(r"`([a-z]+)/`", row)]
    built = [room for room in ROOMS if (PACKAGE / room).is_dir()]
    assert names == built
