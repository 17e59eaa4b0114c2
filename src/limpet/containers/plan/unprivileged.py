"""What a user without root can't give a container: said before anything is made, where the kernel would only say no."""

from __future__ import annotations

import resource

from limpet.containers.plan import sharing, spec
from limpet.errors import Refused
from limpet.kernel import cgroup, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.options import Options

_NO_LIMIT = (1 << 64) - 1


def check(options: Options) -> None:
    """Raises Refused. Limits of the control groups are `limits.check`'s."""
    if options.runtime != "limpet":
        raise Refused(f"the runtime {options.runtime} needs root", "leave out --runtime")
    if sharing.connected(options):
        raise Refused(
            f"--network {options.network} needs root", "host (the default), none and container:NAME are there"
        )
    if options.device_cgroup_rules:
        raise Refused(
            f"--device-cgroup-rule '{options.device_cgroup_rules[0]}' needs root",
            "leave it out: yours open what the devices' modes let you open",
        )
    if options.cgroup_parent and cgroup.root() is None:
        raise Refused(f"--cgroup-parent {options.cgroup_parent} needs a control group of yours", cgroup.WAY)
    for text in options.ulimits:
        wanted = spec.rlimit(text)
        _, most = resource.getrlimit(process.LIMITS.index(wanted["type"]))
        if most != resource.RLIM_INFINITY and wanted["hard"] > most:
            asked = "no limit" if wanted["hard"] == _NO_LIMIT else wanted["hard"]
            raise Refused(
                f"--ulimit {text}: only root may raise it above your own limit, {most} (asked for: {asked})",
                "an administrator raises yours in /etc/security/limits.conf",
            )
    if options.oom_score_adj:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            least = int(file.read())
        if options.oom_score_adj < least:
            raise Refused(
                f"--oom-score-adj {options.oom_score_adj}: only root may go below {least}, which you have",
                "choose a higher number, or leave it out",
            )
