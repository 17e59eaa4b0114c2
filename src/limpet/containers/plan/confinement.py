"""Seccomp for a container: the section of config.json as text, and the compiled program that `runtime` installs."""

from __future__ import annotations

from limpet import jsontext
from limpet.containers.plan import spec
from limpet.kernel import seccomp as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options
    from limpet.store.store import Store

    Config = dict[str, Any]


def seccomp(store: Store, options: Options, config: Config) -> tuple[str, bytes | None]:
    """("", None) for none: `--privileged`, or `--security-opt seccomp=unconfined`. Raises Invalid for a bad profile."""
    said = spec.security(options)["seccomp"]
    if options.privileged or said == "unconfined":
        return "", None
    names = config["process"]["capabilities"]["bounding"]
    profile = kernel.from_docker_json(said, names) if said else kernel.default_profile(names)
    return jsontext.dumps(profile), program(store, options, config)


def program(store: Store, options: Options, config: Config) -> bytes | None:
    """Only the program, for the container's bounding set. The default one is kept compiled in the store's cache."""
    said = spec.security(options)["seccomp"]
    if options.privileged or said == "unconfined":
        return None
    names = config["process"]["capabilities"]["bounding"]
    if said:
        return kernel.compile(kernel.from_docker_json(said, names))
    return kernel.default_program(names, f"{store.root}/cache")
