"""Seccomp for a container: the section of config.json as text, and the compiled program that `runtime` installs."""

from __future__ import annotations

from limpet import jsontext
from limpet.containers import spec
from limpet.kernel import seccomp as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options
    from limpet.store.store import Store

    Config = dict[str, Any]


def seccomp(store: Store, options: Options, config: Config) -> tuple[str, bytes | None]:
    """("", None) for none: `--privileged`, or `--security-opt seccomp=unconfined`."""
    said = spec.security(options)["seccomp"]
    if options.privileged or said == "unconfined":
        return "", None
    names = config["process"]["capabilities"]["bounding"]
    if said:
        profile = kernel.from_docker_json(said, names)
        return jsontext.dumps(profile), kernel.compile(profile)
    profile = kernel.default_profile(names)
    return jsontext.dumps(profile), kernel.compile(profile)
