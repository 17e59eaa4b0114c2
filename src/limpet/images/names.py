"""Names of images: giving one (`tag`) and taking one away (`rmi`), with Docker's rules of what may go.

The rules are those of moby `daemon/images/image_delete.go`: a name that isn't the last one is just untagged; the last
one takes the image with it; a stopped container stands in the way unless forced; a running one keeps the image however
it is forced. What nothing needs afterwards is freed before `remove` returns.
"""

from __future__ import annotations

from limpet.errors import Conflict, Invalid
from limpet.images import catalog, members
from limpet.images.collect import collect
from limpet.oci import digest, reference
from limpet.store import eventlog, faults
from limpet.store.files import in_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store


def tag(store: Store, source: str, target: str) -> str:
    """Gives the image `source` the name `target`, taken from another image if need be. Returns the canonical name."""
    wanted = reference.parse(target)
    if wanted.digest:
        raise Invalid(f"'{target}' has a digest", "a name to give has a tag at most")
    with store.db.transaction():
        image_id = catalog.find_id(store, source)
        # A new name has the manifest of the old one, so that a push or a save sends what was pulled. Another name of
        # the image may have come with another manifest, or in an index with images that it has nothing to do with.
        names = [row[0] for row in store.db.rows("SELECT reference FROM name WHERE image_id = ? ORDER BY 1", image_id)]
        row = store.db.row(
            "SELECT manifest, index_digest FROM name WHERE image_id = ?1 AND manifest IS NOT NULL"
            " ORDER BY reference != ?2, index_digest IS NOT NULL, reference",
            image_id,
            _given_name(store, source, names),
        )
        store.db.run(
            "INSERT INTO name (reference, image_id, manifest, index_digest, implicit) VALUES (?1, ?2, ?3, ?4, 0)"
            " ON CONFLICT (reference) DO UPDATE SET image_id = ?2, manifest = ?3, index_digest = ?4, implicit = 0",
            wanted.canonical,
            image_id,
            *(row or (None, None)),
        )
    faults.reach("tagged")
    eventlog.write(store, "image", "tag", image_id, {"name": wanted.familiar})
    return wanted.canonical


def remove(store: Store, text: str, force: bool = False, prune: bool = True) -> list[str]:
    """Takes away a name, or an image by its id: Docker's lines `Untagged: NAME`, `Deleted: DIGEST`.

    Raises NotFound, and Conflict where a container or further names stand in the way. `prune` is accepted for Docker's
    `--no-prune`: images here have no parents that could be kept.
    """
    lines: list[str] = []
    with store.db.transaction():
        image_id = catalog.find_id(store, text)
        names = [row[0] for row in store.db.rows("SELECT reference FROM name WHERE image_id = ? ORDER BY 1", image_id)]
        given = _given_name(store, text, names)
        gone = _by_name(store, image_id, given, names, force) if given else _by_id(store, image_id, names, force)
        belonging = [id for id, holders in members.held(store).items() if holders <= set(gone)]
        for name in gone:
            lines += _untag(store, name)
        # The last name is gone, but a running container keeps the image: it stays, nameless, as Docker's does.
        if len(gone) == len(names) and not (given and _running(store, image_id)):
            store.db.run("DELETE FROM image WHERE id = ?", image_id)
            lines.append(f"Deleted: {image_id}")
        for other in belonging:  # of the same index, for other platforms
            if not _user(store, other):
                store.db.run("DELETE FROM image WHERE id = ?", other)
                lines.append(f"Deleted: {other}")
    faults.reach("image-row-gone")
    for name in gone:
        eventlog.write(store, "image", "untag", image_id, {"name": reference.parse(name).familiar})
    if f"Deleted: {image_id}" in lines:
        eventlog.write(store, "image", "delete", image_id, {"name": image_id})
    freed = collect(store)
    lines += [f"Deleted: {image_id}" for image_id in freed.images]
    return lines + [f"Deleted: {diff_id}" for diff_id in reversed(freed.layers)]


def _given_name(store: Store, text: str, names: list[str]) -> str:
    """The row's name that `text` is, or "" if it is (the beginning of) an id."""
    try:
        wanted = reference.parse(text)
    except Invalid:
        return ""
    if catalog.by_reference(store, wanted) is None:
        return ""
    if not wanted.digest:
        return wanted.canonical
    with_digest = f"{wanted.repository}@{wanted.digest}"
    if with_digest in names:
        return with_digest
    return next((name for name in names if reference.parse(name).repository == wanted.repository), "")


def _by_name(store: Store, image_id: str, given: str, names: list[str], force: bool) -> list[str]:
    rest = [name for name in names if name != given]
    repository = reference.parse(given).repository
    # Names by digest of the same repository aren't worth keeping when its last tag goes.
    gone = [given]
    if all("@" in name and reference.parse(name).repository == repository for name in rest):
        gone += rest
    if len(gone) == len(names) and not force:
        user = _user(store, image_id)
        if user:
            raise Conflict(
                f'conflict: unable to remove repository reference "{reference.parse(given).familiar}" (must force) - '
                f"container {user[:12]} is using its referenced image {digest.short(image_id)}",
                exit_code=1,
            )
    return gone


def _by_id(store: Store, image_id: str, names: list[str], force: bool) -> list[str]:
    short = digest.short(image_id)
    running = _running(store, image_id)
    if running:
        raise Conflict(
            f"conflict: unable to delete {short} (cannot be forced) - "
            f"image is being used by running container {running[:12]}",
            exit_code=1,
        )
    if not force:
        tagged = {name for name in names if "@" not in name}
        if len(tagged) > 1 or len({reference.parse(name).repository for name in names}) > 1:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
                exit_code=1,
            )
        user = _user(store, image_id)
        if user:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - "
                f"image is being used by stopped container {user[:12]}",
                exit_code=1,
            )
    return names


def _untag(store: Store, name: str) -> list[str]:
    row = store.db.row("SELECT manifest, index_digest FROM name WHERE reference = ?", name)
    store.db.run("DELETE FROM name WHERE reference = ?", name)
    parsed = reference.parse(name)
    lines = [f"Untagged: {parsed.familiar}"]
    content = row[1] or row[0]
    if content and not parsed.digest:
        held = store.db.rows("SELECT reference FROM name WHERE manifest IS ? AND index_digest IS ?", row[0], row[1])
        if not any(reference.parse(other).repository == parsed.repository for (other,) in held):
            lines.append(f"Untagged: {parsed.familiar_name}@{content}")  # what a pulled name stood for, as Docker
    return lines


def _user(store: Store, image_id: str) -> str:
    row = store.db.row("SELECT container_id FROM container_use WHERE image_id = ? ORDER BY created", image_id)
    return str(row[0]) if row else ""


def _running(store: Store, image_id: str) -> str:
    """The id of a container of this image whose monitor lives: it holds the lock in the run directory."""
    for (container_id,) in store.db.rows(
        "SELECT container_id FROM container_use WHERE image_id = ? ORDER BY created", image_id
    ):
        if runs(store, container_id):
            return str(container_id)
    return ""


def runs(store: Store, container_id: str) -> bool:
    """Whether somebody holds the lock in the container's run directory: its monitor."""
    return in_use(f"{store.run_path(container_id)}/lock")
