"""`python -m limpet`, and what a checkout's launcher runs as a script (`-S -I`: no site, so paths are set here)."""

import sys

if not __package__:
    _source = __file__.rpartition("/limpet/")[0]
    _checkout = _source.rpartition("/")[0]
    sys.path.insert(0, _source)
    sys.path.append(f"{_checkout}/.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")

from limpet.cli.main import entry

entry()
