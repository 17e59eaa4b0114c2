"""Options of `podman run` and `create` that Docker does not have; what they come to is in `podman_given`."""

from __future__ import annotations

from limpet.cli.table import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call

PODMAN = (
    Option("annotation", kind="list", metavar="KEY=VALUE", help="Set an annotation in the runtime's config.json"),
    Option("arch", kind="string", default="", metavar="ARCH", help="Processor of an image to pull, as in --platform"),
    Option("authfile", kind="string", default="", metavar="FILE", help="File of logins for the pull"),
    Option("env-host", help="Take over all of the caller's environment"),
    Option(
        "env-merge", kind="list", metavar="KEY=VALUE", help="As --env; ${NAME} is the image's variable of that name"
    ),
    Option("http-proxy", help="Take over http_proxy and its like from the caller's environment"),
    Option(
        "image-volume",
        kind="string",
        default="",
        metavar="KIND",
        help="What the image's VOLUME means: anonymous (a volume, the default), tmpfs, ignore",
        choices=("anonymous", "bind", "tmpfs", "ignore"),
    ),
    Option("no-hostname", help="Leave the image's /etc/hostname"),
    Option("no-hosts", help="Leave the image's /etc/hosts"),
    Option("os", kind="string", default="", metavar="OS", help="System of an image to pull, as in --platform"),
    Option(
        "pidfile", kind="string", default="", metavar="FILE", help="Write the pid of the container's PID 1 to a file"
    ),
    Option("read-only-tmpfs", help="With --read-only: a tmpfs on /run, /tmp and /var/tmp"),
    Option("replace", help="Remove a container of this name first"),
    Option("requires", kind="list", metavar="CONTAINER", help="Start this container first"),
    Option("timeout", kind="int", metavar="SECONDS", help="Kill it when it has run for so long"),
    Option("tz", kind="string", default="", metavar="ZONE", help="Time zone, as in Europe/Berlin; local: the host's"),
    Option("umask", kind="string", default="", metavar="MASK", help="Mask of the modes of new files (0022)"),
    Option("unsetenv", kind="list", metavar="KEY", help="Leave out a variable of the image"),
    Option("unsetenv-all", help="Leave out all variables of the image"),
    Option("variant", kind="string", default="", metavar="VARIANT", help="Variant of the processor, as in --platform"),
)


def said(call: Call) -> bool:
    """Whether any of them was; else their module need not be loaded."""
    return any(call[option.name] not in (option.default, []) for option in PODMAN)
