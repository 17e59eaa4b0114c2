"""Every command's name, the module that has it, and what it does in one line. `--help` needs no more than this.

A module has a `COMMANDS: dict[str, Command]` under the same names. `ALIASES` are other names for the same commands.
"""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("limpet.cli.up", "Build and start the service of a directory"),
    "down": ("limpet.cli.up", "Stop and remove what `up` made"),
    "run": ("limpet.cli.run", "Create and run a new container from an image"),
    "exec": ("limpet.cli.run", "Execute a command in a running container"),
    "ps": ("limpet.cli.ps", "List containers"),
    "logs": ("limpet.cli.logs", "Show what a container wrote"),
    "build": ("limpet.cli.build", "Build an image from a Dockerfile"),
    "cache export": ("limpet.cli.cache", "Write a cache mount to a tar"),
    "cache import": ("limpet.cli.cache", "Make a cache mount of a tar"),
    "cache ls": ("limpet.cli.cache", "List what builds keep: results of steps, cache mounts"),
    "cache prune": ("limpet.cli.cache", "Remove what only the build cache holds"),
    "cache rm": ("limpet.cli.cache", "Remove results of steps, and cache mounts"),
    "pull": ("limpet.cli.images", "Download an image from a registry"),
    "images": ("limpet.cli.images_local", "List images"),
    "bake": ("limpet.cli.bake", "Build the targets of docker-bake.hcl or a Compose file"),
    "attach": ("limpet.cli.run", "Attach to a running container"),
    "capture": ("limpet.cli.images_local", "Make an image of programs of this host"),
    "commit": ("limpet.cli.files", "Make an image of a container's changes"),
    "completion": ("limpet.cli.completion", "Print a completion script for bash, zsh or fish"),
    "container inspect": ("limpet.cli.inspect", "Show all that is known about containers"),
    "container prune": ("limpet.cli.containers", "Remove all stopped containers"),
    "copy": ("limpet.cli.snapshots", "Make a copy of a container"),
    "cp": ("limpet.cli.files", "Copy files between a container and the host"),
    "create": ("limpet.cli.run", "Create a new container"),
    "diff": ("limpet.cli.files", "List what a container changed"),
    "events": ("limpet.cli.events", "Show what happens, as it happens"),
    "export": ("limpet.cli.files", "Write a container's files as a tar"),
    "history": ("limpet.cli.images_local", "Show the history of an image"),
    "image inspect": ("limpet.cli.images_local", "Show all that is known about images"),
    "image prune": ("limpet.cli.images_local", "Remove unused images"),
    "import": ("limpet.cli.images_local", "Make an image from a root file system"),
    "info": ("limpet.cli.system", "Show the features of this host and what uses them"),
    "inspect": ("limpet.cli.inspect", "Show all that is known about containers and images"),
    "kill": ("limpet.cli.containers", "Send a signal to running containers"),
    "load": ("limpet.cli.images", "Load images from an archive"),
    "login": ("limpet.cli.login", "Log in to a registry"),
    "logout": ("limpet.cli.login", "Forget the login of a registry"),
    "manifest annotate": ("limpet.cli.manifest", "Say for which platform an image of a list is"),
    "manifest create": ("limpet.cli.manifest", "Begin a list of images for several platforms"),
    "manifest inspect": ("limpet.cli.manifest", "Show a list, or a manifest in a registry"),
    "manifest push": ("limpet.cli.manifest", "Push a list to a registry"),
    "manifest rm": ("limpet.cli.manifest", "Remove lists"),
    "metrics serve": ("limpet.cli.metrics", "Serve figures of all containers for Prometheus"),
    "pause": ("limpet.cli.containers", "Let all processes of containers stand still"),
    "port": ("limpet.cli.containers", "Show where a container's programs listen"),
    "push": ("limpet.cli.images", "Upload an image to a registry"),
    "registry gc": ("limpet.cli.registry_serve", "Remove blobs of a registry that no manifest needs"),
    "registry copy": ("limpet.cli.registry", "Copy an image from registry to registry"),
    "registry delete": ("limpet.cli.registry", "Delete tags or manifests from a registry"),
    "registry inspect": ("limpet.cli.registry", "Show what a registry has under a name"),
    "registry referrers": ("limpet.cli.registry", "List what refers to an image"),
    "registry serve": ("limpet.cli.registry_serve", "Serve a registry of one's own"),
    "registry tags": ("limpet.cli.registry", "List the tags of a repository"),
    "rename": ("limpet.cli.containers", "Rename a container"),
    "restore": ("limpet.cli.snapshots", "Put back what a container had written"),
    "restart": ("limpet.cli.containers", "Restart containers"),
    "rm": ("limpet.cli.containers", "Remove containers"),
    "rmi": ("limpet.cli.images_local", "Remove images"),
    "save": ("limpet.cli.images", "Save images to an archive"),
    "search": ("limpet.cli.search", "Search a registry for images"),
    "snapshot": ("limpet.cli.snapshots", "Keep what a container wrote until now"),
    "snapshots": ("limpet.cli.snapshots", "List the snapshots of a container"),
    "start": ("limpet.cli.run", "Start stopped containers"),
    "stats": ("limpet.cli.stats", "Show what containers use of the machine"),
    "stop": ("limpet.cli.containers", "Stop running containers"),
    "system check": ("limpet.cli.system_store", "Check everything in the store"),
    "system df": ("limpet.cli.system_store", "Show what uses how much disk"),
    "system prune": ("limpet.cli.system_store", "Remove what nothing uses"),
    "system recover": ("limpet.cli.system_store", "Bring back what a crash or a boot ended"),
    "tag": ("limpet.cli.images_local", "Give an image one more name"),
    "top": ("limpet.cli.containers", "Show the processes of a container"),
    "unpause": ("limpet.cli.containers", "Let paused containers go on"),
    "update": ("limpet.cli.limits", "Change the limits of containers"),
    "version": ("limpet.cli.system", "Show the version"),
    "volume create": ("limpet.cli.volumes", "Create a volume"),
    "volume export": ("limpet.cli.volumes", "Write a volume's files as a tar"),
    "volume import": ("limpet.cli.volumes", "Unpack a tar into a volume"),
    "volume inspect": ("limpet.cli.volumes", "Show all that is known about volumes"),
    "volume ls": ("limpet.cli.volumes", "List volumes"),
    "volume prune": ("limpet.cli.volumes", "Remove unused volumes"),
    "volume rm": ("limpet.cli.volumes", "Remove volumes"),
    "wait": ("limpet.cli.containers", "Wait until containers stop, print their exit codes"),
    "__complete": ("limpet.cli.completion", ""),
}

_CONTAINER = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause"
    " update wait"
).split()
_IMAGE = "build capture history import load pull push save tag".split()

ALIASES: dict[str, str] = {
    **{f"container {name}": name for name in _CONTAINER},
    **{f"image {name}": name for name in _IMAGE},
    "container list": "ps",
    "container ls": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "image list": "images",
    "image ls": "images",
    "image remove": "rmi",
    "image rm": "rmi",
    "system events": "events",
    "system info": "info",
    "volume list": "volume ls",
    "builder prune": "cache prune",
    "volume remove": "volume rm",
}

GROUPS: dict[str, str] = {
    "builder": "Manage builds",
    "cache": "Manage the caches of builds",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage images for several platforms",
    "metrics": "Show figures to other programs",
    "registry": "Work with registries, or serve one",
    "system": "Manage the store",
    "volume": "Manage volumes",
}


def visible() -> list[str]:
    """Names of all commands that a person may type, aliases left out."""
    return [name for name in COMMANDS if not name.startswith("_")]
