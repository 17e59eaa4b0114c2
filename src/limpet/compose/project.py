"""A project: a directory that somebody wants up. Here it is one service, built from the directory's Dockerfile.

`up` converges: it builds, and makes a container only if there is none from the same image.
`down` removes exactly what `up` made: it finds containers and images by the labels that they carry, which are those of
Docker Compose, so that tools that look for them find them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from limpet.build.build import Asked, build
from limpet.build.outputs.request import Wanted
from limpet.compose import kept, lock
from limpet.containers import create, start, state, stop
from limpet.containers.mounts import volumes as volume_rows
from limpet.containers.network import ports as port_names
from limpet.containers.observe import listing, watch
from limpet.containers.options import Options
from limpet.errors import Conflict, Invalid, LimpetError, NotFound, Refused
from limpet.frozen import dataclass
from limpet.images import catalog, names
from limpet.oci import reference

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from limpet.build.reporting.report import Report
    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store

SERVICE = "app"
PATIENCE = 30
"""Seconds that `up` waits for a port to answer before it says that none does."""

SILENCE = 1.0
"""Seconds of that for which nobody needs to be told."""

SETTLED = 2.0
"""Seconds that a program without a port has to stay up to be taken for started."""

_LABEL = "com.docker.compose."
_MAX_NAME = 63


@dataclass(frozen=True, slots=True)
class Project:
    """`directory` is absolute and free of links: it tells projects of the same name apart."""

    name: str
    directory: str

    @property
    def image(self) -> str:
        return f"{self.name}-{SERVICE}"

    @property
    def container(self) -> str:
        return f"{self.name}-{SERVICE}-1"

    @property
    def labels(self) -> dict[str, str]:
        return {
            f"{_LABEL}project": self.name,
            f"{_LABEL}service": SERVICE,
            f"{_LABEL}project.working_dir": self.directory,
        }


def load(directory: str, name: str = "") -> Project:
    """Raises NotFound for a missing directory, Invalid for a name that nothing is left of."""
    path = os.path.realpath(directory)
    if not os.path.isdir(path):
        raise NotFound(f"{directory}: no such directory", exit_code=1)
    wanted = name or os.path.basename(path)
    clean = "".join(c for c in wanted.lower() if c.isascii() and (c.isalnum() or c in "_-")).lstrip("_-")[:_MAX_NAME]
    if not clean or (name and clean != name):
        raise Invalid(
            f"'{wanted}' can't be a project's name", "-p NAME with lower-case letters, digits, - and _", exit_code=1
        )
    return Project(clean, path)


@dataclass(frozen=True, slots=True)
class Up:
    """What `up` came to. `running`: the container runs already. `fresh`: before there was no image of the project.

    `volumes` are the names of those that were not here before.
    """

    container: Container
    running: bool
    fresh: bool
    volumes: tuple[str, ...] = ()


def up(store: Store, project: Project, *, rebuild: bool = False, say: Callable[[str], None], report: Report) -> Up:
    """Builds, and makes the container if need be. It is not started here.

    Raises Conflict for a port in use, before anything is built. The caller holds the project's lock (`lock.held`).
    """
    _check_file(project)
    _check_name(store, project)
    fresh = not _images(store, project)
    ours = any(state.status(store, each).running for each in containers(store, project))
    built = build(
        store,
        Asked(project.directory),
        Wanted((reference.parse(project.image),)),
        labels=project.labels,
        no_cache=rebuild,
        check_ports=None if ours else _check_ports,
        report=report,
    )
    image = catalog.find(store, built.kept)
    wanted = hashlib.sha256(image.id.encode()).hexdigest()
    for old in containers(store, project):
        running = state.status(store, old).running
        if old.options.labels.get(f"{_LABEL}config-hash") == wanted and old.name == project.container:
            say(f"Container {old.name}: {'running' if running else 'exists'}")
            return Up(old, running, fresh)
        if running:
            remark = stop.stop(store, old)
            if remark:
                say(f"Container {old.name}: {remark}")
        say(f"Container {old.name}: recreated, its image changed")
        stop.remove(store, old, force=True, volumes=True)
    if ours:  # by now its port is free, or somebody else's
        _check_ports(_ports_of(image.config))
    mounted, fresh_volumes = kept.make(store, project.name, project.labels, list(_inner(image).get("Volumes") or ()))
    options = Options(
        name=project.container,
        image=project.image,
        volumes=mounted,
        address=["0.0.0.0"],  # what it serves is at http://localhost
        labels={
            **project.labels,
            f"{_LABEL}container-number": "1",
            f"{_LABEL}oneoff": "False",
            f"{_LABEL}config-hash": wanted,
        },
    )
    container = create.create(store, image, options)
    say(f"Container {container.name}: created")
    return Up(container, False, fresh, tuple(fresh_volumes))


def launch(store: Store, container: Container) -> int | None:
    """Starts it in the background. Without a port that tells that it is well, it is watched for `SETTLED` seconds.

    None if it runs, 0 if it has done its work by then. Raises LimpetError with its last words if it failed.
    """
    start.start(store, container)
    if ports(store, container):
        return None
    code = watch.ended(store, container, SETTLED)
    if code:
        raise LimpetError(watch.last_words(store, container, code), exit_code=1)
    return code


def down(
    store: Store,
    project: Project,
    *,
    timeout: int | None = None,
    volumes: bool = False,
    say: Callable[[str], None],
) -> None:
    """Removes containers and images; with `volumes` what they kept, too. Raises NotFound if there is nothing.

    A base that only `up` brought in goes with the last image that stands on it (`images.collect`).
    """
    there = bool(containers(store, project) or _images(store, project))
    with lock.held(store, project.name, say) as waited:
        gone = _down(store, project, timeout=timeout, say=say)
        for volume in kept.of(store, project.labels):
            if volumes:
                volume_rows.remove(store, volume.name)
                gone = True
            say(f"Volume {volume.name}: {'removed' if volumes else 'kept, --volumes removes it'}")
        if not (gone or there or waited):  # another `down` may have taken it while we waited
            raise NotFound(f"nothing of project {project.name} is here", "`limpet up` makes it", exit_code=1)


def _down(store: Store, project: Project, *, timeout: int | None, say: Callable[[str], None]) -> bool:
    """Whether there was anything."""
    found = containers(store, project)
    for container in found:
        remark = stop.stop(store, container, timeout=timeout)
        if remark:
            say(f"Container {container.name}: {remark}")
        stop.remove(store, container, force=True, volumes=True)
        say(f"Container {container.name}: removed")
    return remove_images(store, project, say=say) or bool(found)


def remove_images(store: Store, project: Project, *, say: Callable[[str], None]) -> bool:
    """Whether there were any."""
    images = _images(store, project)
    implicit = _implicit(store)
    for image in images:
        names.remove(store, image.id, force=True)
    if images:
        say(f"Image {project.image}: removed")
    for base in sorted(implicit - _implicit(store)):
        say(f"Image {reference.parse(base).familiar}: removed, it was here for this only")
    return bool(images)


def find(store: Store, name: str) -> Project:
    """A project by its name: its directory may be gone. Raises NotFound, Conflict if two have the name."""
    labels = [container.options.labels for container in state.all_containers(store)]
    labels += [_labels(image) for image in catalog.all_images(store)]
    labels += [volume.labels for volume in volume_rows.all_volumes(store)]
    places = {each.get(f"{_LABEL}project.working_dir", "") for each in labels if each.get(f"{_LABEL}project") == name}
    if not places:
        raise NotFound(f"nothing of project {name} is here", "`limpet up` makes it", exit_code=1)
    if len(places) > 1:
        raise Conflict(f"several projects are called {name}", f"name the directory: {', '.join(sorted(places))}")
    return Project(name, places.pop())


def containers(store: Store, project: Project) -> list[Container]:
    """Those that `up` made for this very directory."""
    return [
        container
        for container in state.all_containers(store)
        if all(container.options.labels.get(key) == value for key, value in project.labels.items())
    ]


def ports(store: Store, container: Container) -> list[int]:
    """The TCP ports that its image exposes: on the host's network that is where it answers."""
    return _numbers(_ports_of(listing.image_config(store, container)))


def wait_for_port(
    store: Store,
    container: Container,
    seconds: float = PATIENCE,
    *,
    stopped: threading.Event | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """The address that answers, as a URL; "" if there is no port, or `stopped` was set.

    `say` is told what is waited for, if it takes more than a moment. Raises LimpetError when the container ends first,
    or when nothing answers within `seconds`.
    """
    wanted = ports(store, container)
    begin = time.monotonic()
    told = False
    while wanted and not (stopped and stopped.is_set()):
        for port in wanted:
            if _answers(port):
                return f"http://127.0.0.1:{port}"
        if not os.path.isdir(store.container_path(container.id)):
            raise NotFound(f"container {container.name} was removed meanwhile", exit_code=1)
        status = state.status(store, container)
        if not status.running:
            raise LimpetError(watch.last_words(store, container, status.exit_code), exit_code=1)
        waited = time.monotonic() - begin
        if waited >= seconds:
            raise LimpetError(*_unanswered(store, container, wanted, seconds), exit_code=1)
        if waited >= SILENCE and not told:
            told = True
            say(f"Container {container.name}: waiting until {_named(wanted)} answers, {seconds:g} s at most")
        time.sleep(0.02)
    return ""


def _unanswered(store: Store, container: Container, wanted: list[int], seconds: float) -> tuple[str, str]:
    """What is wrong, and what its programs listen to instead: EXPOSE is a claim."""
    from limpet.containers.network import listening

    message = f"container {container.name} runs, but nothing answers on {_named(wanted)} after {seconds:g} s"
    try:
        sockets = listening.sockets(store, container)
    except LimpetError:
        sockets = []
    found = ", ".join(listening.shown(address, port) for protocol, port, address in sockets if protocol == "tcp")
    if found:
        return message, f"it listens on {found}: EXPOSE that port in the Dockerfile, or let the program bind this one"
    return message, f"none of its programs listens; `limpet logs {container.name}` shows what they say"


def _named(numbers: list[int]) -> str:
    """ "port 80", "one of the ports 80, 443"."""
    if len(numbers) == 1:
        return f"port {numbers[0]}"
    return f"one of the ports {', '.join(map(str, numbers))}"


def _ports_of(config: dict[str, object]) -> tuple[str, ...]:
    inner = config.get("config")
    return tuple((inner.get("ExposedPorts") if isinstance(inner, dict) else None) or ())


def _numbers(exposed: tuple[str, ...]) -> list[int]:
    """Those of TCP, in order."""
    return sorted(int(port.partition("/")[0]) for port in exposed if port.endswith("/tcp") or "/" not in port)


def _answers(port: int) -> bool:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(1)
                client.connect((address, port))
                return True
        except OSError:
            continue
    return False


def _check_ports(exposed: tuple[str, ...]) -> None:
    """On the host's network a port is free or it is not: better said before the program fails to bind it."""
    refusal = port_names.out_of_reach(exposed)
    if refusal is not None:
        raise Refused(*refusal, exit_code=1)
    for port in _numbers(exposed):
        if _answers(port):
            raise Conflict(
                f"port {port} is in use by another program on this host",
                f"`ss -ltnp 'sport = :{port}'` shows which",
                exit_code=1,
            )


def _images(store: Store, project: Project) -> list[Image]:
    return [
        image
        for image in catalog.all_images(store)
        if all(_labels(image).get(key) == value for key, value in project.labels.items())
    ]


def _labels(image: Image) -> dict[str, str]:
    return _inner(image).get("Labels") or {}


def _inner(image: Image) -> dict[str, Any]:
    return image.config.get("config") or {}


def _implicit(store: Store) -> set[str]:
    return {name for (name,) in store.db.rows("SELECT reference FROM name WHERE implicit = 1")}


def _check_file(project: Project) -> None:
    path = f"{project.directory}/Dockerfile"
    if os.path.lexists(path):
        return
    hint = "`limpet up` starts a directory with a Dockerfile; `limpet build -f` takes one of any name"
    for name in ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"):
        if os.path.exists(f"{project.directory}/{name}"):
            hint = f"{name} is there, but Compose files are to come: now it is one service, from a Dockerfile"
    raise NotFound(f"{path}: no such Dockerfile", hint, exit_code=1)


def _check_name(store: Store, project: Project) -> None:
    """Another directory's project of the same name would take this one's image and container names."""
    for container in state.all_containers(store):
        if container.name != project.container:
            continue
        place = container.options.labels.get(f"{_LABEL}project.working_dir")
        if place != project.directory:
            whose = f"the project in {place}" if place else "a container that `up` did not make"
            raise Conflict(f"the name {project.container} belongs to {whose}", "choose another with -p", exit_code=1)
