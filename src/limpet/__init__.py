"""limpet, a container engine. `docs/architecture.md` draws the rooms; each folder's docstring says what is in it."""

__version__ = "0.1.0"
