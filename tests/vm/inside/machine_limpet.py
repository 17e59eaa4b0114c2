"""limpet as the guest's user calls it, with the store of the machine."""

from __future__ import annotations

import subprocess

ROOT = "/checkout"
NAMES = ("always", "unless", "once", "by-hand", "limited")
SCRIPT = "echo began; trap 'echo gently; exit 0' TERM; while sleep 0.2; do :; done"


def limpet(*words: str, check: bool = True) -> str:
    """What it prints."""
    result = subprocess.run([f"{ROOT}/limpet", *words], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 or not check, f"limpet {words}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def systemctl(*words: str) -> str:
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=300)
    return result.stdout.strip() + result.stderr.strip()
