"""Whether and when a container that has ended is started again, and what was changed about it while it ran.

The monitor never opens the database. A command that changes a running container leaves a word in `<run>/<id>/updated`,
which the monitor takes up before it decides, and the next `start` from the database takes away.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.containers.options import Options, restart_policy
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

FIRST_DELAY = 0.1  # seconds; moby `restartmanager.go`
LONGEST_DELAY = 60.0
LONG_ENOUGH = 10.0  # a run of this many seconds starts the delays anew


def delay(before: float, lasted: float) -> float:
    """Seconds to wait now, after a run that lasted so long, if it was `before` the last time."""
    return FIRST_DELAY if lasted >= LONG_ENOUGH else min(before * 2, LONGEST_DELAY)


def wanted(options: Options, run: str, code: int, restarts: int, *, whatever: bool = False) -> bool:
    """By its policy, or `whatever` that is, after an exit with `code`; never after a stop by hand."""
    if os.path.exists(f"{run}/stopped"):
        return False
    policy, most = restart_policy(options.restart)
    if policy == "no":
        return whatever
    if policy == "on-failure" and not whatever:
        return code != 0 and (most == 0 or restarts < most)
    return True


def leave_word(store: Store, container: Container) -> None:
    """For its monitor, if it has one: name and options as they are now, the first three for an older one."""
    options = container.options
    said = {"name": container.name, "limits": options.limits, "restart": options.restart, "options": options.to_json()}
    try:
        files.write_file(f"{store.run_path(container.id)}/updated", jsontext.dumps(said).encode(), durable=False)
    except FileNotFoundError:
        pass  # it never ran since the machine started


def take_word(container: Container, run: str) -> bool:
    """Changes the container by what was left, if anything was: then its plan (config.json) has to be made anew."""
    try:
        with open(f"{run}/updated", "rb") as file:
            said = jsontext.loads(file.read())
    except (FileNotFoundError, ValueError):
        return False
    if "options" in said:  # an older limpet leaves the three only
        container.options = Options.from_json(said["options"])
    else:
        container.options.limits, container.options.restart = said["limits"], said["restart"]
    container.name = container.options.name = said["name"]
    return True
