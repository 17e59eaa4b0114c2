"""By what the result of a step is found again: a key over all that it depends on.

The key of a step is SHA-256 over what is beneath it (the base image's id, the epoch, the layers of the steps before),
the step itself, and for COPY the names, modes, owners and contents of the files. Times are not in it, and owners of
context files neither: the same inputs give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.planning.plan import Directory, Run
    from limpet.build.steps.stepmounts import Bound


def key(parent: str, inputs: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(f"{parent}\0{inputs}".encode(errors="surrogateescape")).hexdigest()


def linked(epoch: int, inputs: str) -> str:
    """By what the layer of a COPY --link is found: it does not depend on what is beneath it."""
    return key("link", f"{epoch} {inputs}")


def copy_inputs(digest: str) -> str:
    """`digest`: over all that is copied (`Copying.digest`)."""
    return f"COPY {digest}"


def directory_inputs(step: Directory) -> str:
    return f"WORKDIR {json.dumps([step.path, step.user])}"


def run_inputs(step: Run, architecture: object, bound: Mapping[int, Bound]) -> str:
    """`bound`: where the mounts take their files, by their place in the step."""
    mounts = []
    for number, each in enumerate(step.mounts):
        content = bound[number].key if number in bound and each.mount.type == "bind" else ""  # a cache's does not count
        mounts.append([*dataclasses.astuple(each.mount), content])
    parts = [
        step.argv,
        step.env,
        step.workdir,
        step.user,
        step.network,
        [(file.name, file.content) for file in step.scripts],
        mounts,
        architecture,
    ]
    special = [step.security, [device.name for device in step.devices], step.hosts, step.ulimits, step.shm_size]
    if special != ["sandbox", [], (), (), 0]:
        parts.append(special)
    return f"RUN {json.dumps(parts)}"
