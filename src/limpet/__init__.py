"""limpet, a container engine. `docs/architecture.md` draws the rooms; each folder's docstring says what is in it."""

import os

__version__ = "0.1.0"

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where the package is: what other processes of ours import it from."""
