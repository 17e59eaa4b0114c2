"""What `ps` shows of a forked process: its own title in place of the command line that it was forked from.

That line may hold what its user typed, such as `-e PASSWORD=...`, and the monitor lives as long as the container.
"""

from __future__ import annotations

import os


def set_title(text: str) -> None:
    """Overwrites the memory that /proc/self/cmdline reads (proc(5): arg_start, arg_end); cut to what was there."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, text.encode()[: end - start - 1].ljust(end - start, b"\0"), start)
        finally:
            os.close(fd)
    except (OSError, ValueError, IndexError):
        pass  # a kernel without it: the old title stays
