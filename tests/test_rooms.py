"""Arrows go down only: a room imports from rooms below it, never above, and never sideways into what is not listed."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src/limpet"

ROOMS = ["cli", "compose", "build", "containers", "images", "registry", "layers", "store", "oci", "kernel"]
"""From the top to the bottom."""

SHARED = {"errors", "jsontext", "progress", "units"}
"""Modules of the package itself, below every room."""


def imports(path: Path) -> set[str]:
    """Rooms and shared modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "limpet":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("limpet.")}
    return found


def test_a_room_imports_only_from_rooms_below_it() -> None:
    wrong = []
    for position, room in enumerate(ROOMS):
        allowed = set(ROOMS[position:]) | SHARED
        for path in (SOURCE / room).rglob("*.py"):
            wrong += [f"{path.relative_to(SOURCE)} imports limpet.{name}" for name in imports(path) - allowed]
    assert wrong == []


def test_the_shared_modules_import_no_room() -> None:
    for name in SHARED:
        assert imports(SOURCE / f"{name}.py") <= SHARED


def test_every_folder_is_a_room_and_says_what_is_in_it() -> None:
    folders = sorted(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert folders == sorted(ROOMS)
    for room in ROOMS:
        first = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text())) or ""
        assert first.startswith(f"{room}: ")


def test_only_the_kernel_room_knows_system_calls() -> None:
    for room in ROOMS[:-1]:
        for path in (SOURCE / room).rglob("*.py"):
            text = path.read_text()
            assert "ctypes" not in text, path
            assert "kernel.sys" not in text, path
