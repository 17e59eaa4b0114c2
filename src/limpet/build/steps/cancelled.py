"""What ends a step whose result nobody wants any more."""

from __future__ import annotations


class Cancelled(Exception):
    """Another step failed, or the build was ended."""
