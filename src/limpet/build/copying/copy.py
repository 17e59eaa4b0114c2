"""COPY and ADD: files of the context, a stage, an image, an archive or a heredoc become a layer, without a container.

The destination is resolved in the image built so far, links followed within it, as a copy into a running container
would be. Directories on the way that are there already are listed in the layer with the attributes that they have, so
that the layer changes nothing but what it brings; missing ones are made, mode 0755. With --link nothing is looked up:
the layer has all directories on the way, and puts them in the place of links.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from limpet.build.copying import modes
from limpet.build.copying.context import Entry, escaped
from limpet.build.copying.grouped import Grouped, scan
from limpet.build.copying.place import Place, look, owner, resolve
from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.layers.driver import driver
from limpet.layers.limits import from_environment
from limpet.layers.rootfs_tar import TarWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.build.copying.archive import Archive
    from limpet.build.copying.context import Tree
    from limpet.build.planning.plan import Copy
    from limpet.build.sources.added import Added
    from limpet.store.store import Store


class Source(Protocol):
    """Where the content of a file comes from."""

    def content(self, entry: Entry) -> str:
        """SHA-256 (hex)."""

    def write(self, tar: TarWriter, entry: Entry, mtime_ns: int) -> None: ...

    def xattrs(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A heredoc."""

    data: bytes

    def content(self, entry: Entry) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def write(self, tar: TarWriter, entry: Entry, mtime_ns: int) -> None:
        tar.file(entry.target.strip("/"), self.data, stat.S_IMODE(entry.mode), entry.uid, entry.gid, mtime_ns)

    def xattrs(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        return ()


MOST_DESCRIBED = 100_000


def _line(entry: Entry, source: Source) -> str:
    """All that counts of a file, and its content's digest."""
    plain = stat.S_ISREG(entry.mode) and not entry.same_as
    fields = (
        entry.target,
        f"{entry.mode:o}",
        entry.uid,
        entry.gid,
        entry.device,
        entry.same_as,
        entry.implied,
        source.content(entry) if plain else entry.link,
        *source.xattrs(entry),
    )
    return "\0".join(map(str, fields))


class Copying:
    """What one COPY puts where, everything looked up. `close` when it is done with."""

    def __init__(
        self, store: Store, layers: list[str], step: Copy, tree: Tree, epoch: int, added: Sequence[Added] = ()
    ) -> None:
        """`added` is what is fetched, closed by `close`. Raises NotFound and Invalid."""
        self._store = store
        # A layer of --link is made as if nothing were beneath it (Dockerfile reference, "COPY --link").
        self._layers = [] if step.link else layers
        self._beneath = layers
        self._epoch = epoch
        self._step = step
        self._added = added
        self._archives: list[Archive] = []
        self._root = driver(store).mount(self._layers)
        self._owner = (0, 0)
        # --chmod counts for the directories that are made, too, if it is a number: as in BuildKit.
        self._mode = int(step.chmod, 8) if step.chmod[:1].isdigit() else 0o755
        self._tree = tree
        self._found: list[tuple[Entry, Source]] = []
        self._promised = ""  # the digest, if it was made before the files were listed
        self._collected = False
        self._described: list[tuple[str, str]] | None = None
        try:
            self._target = resolve(self._root, step.target)
            if step.chown:
                self._owner = self._look_up(step.chown)
            self._whole = self._whole_directory()
            if self._whole is None:
                self._collect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._root)
        for archive in self._archives:
            archive.close()
        self._archives = []
        for added in self._added:
            added.close()

    @property
    def fetched(self) -> list[str]:
        """By what each source that ADD fetches is known."""
        return [added.key for added in self._added]

    def digest(self) -> str:
        """SHA-256 (hex) over names, kinds, modes, owners and contents; not over times. Fetches nothing."""
        total = hashlib.sha256(f"{self._owner} {self._mode:o}\0".encode())
        self._grouped().into(total)
        for added in self._added:
            fields = (added.key, *self._target, self._step.chmod, bool(self._step.chown), *self._step.excludes)
            total.update("\0".join(map(str, fields)).encode(errors="surrogateescape") + b"\0\0")
        found = total.hexdigest()
        self._promised = "" if self._collected else found
        return found

    @property
    def described(self) -> list[tuple[str, str]]:
        """What the digest is made of, for each of the first files: (path in the source, the fields)."""
        if self._described is None:
            items = self._items()[:MOST_DESCRIBED]
            self._described = [(entry.path, _line(entry, source)) for entry, source in items]
        return self._described

    def _whole_directory(self) -> str | None:
        """The directory of the context that is all there is to copy: then the single files need not be listed."""
        step = self._step
        if len(step.sources) != 1 or step.files or step.excludes or step.parents or self._added:
            return None
        return self._tree.whole_directory(step.sources[0])

    def _grouped(self) -> Grouped:
        grouped = Grouped()
        if self._whole is not None and not self._collected:
            step, tree = self._step, self._tree
            top = self._target[0].rstrip("/") or "/"
            implied = self._finished(step, Entry("", top, stat.S_IFDIR | 0o755, implied=True))
            grouped.add(implied, _line(implied, tree))

            def line(entry: Entry) -> str:
                return _line(self._finished(step, entry), tree)

            if scan(tree, self._whole, top, grouped, line, f"{step.chmod}\0{step.chown}\0{self._owner}"):
                return grouped
            grouped = Grouped()
        for entry, source in self._items():
            grouped.add(entry, _line(entry, source))
        return grouped

    def _items(self) -> list[tuple[Entry, Source]]:
        if not self._collected:
            self._collect()
        return self._found

    def write(self) -> str:
        """Makes the layer; its diff ID. No time is later than the epoch. The caller holds a lease.

        Raises Invalid if the files are not those of the digest any more.
        """
        self._items()
        for added in self._added:
            self._fetch(added)
        home = driver(self._store)
        with home.ingest() as ingest:
            place = Place(self._root, TarWriter(ingest.write, mtime=self._epoch), self._owner, self._mode)
            for entry, source in self._found:
                place.directory(posixpath.dirname(entry.target.strip("/")))
                self._add(place, entry, source)
            if self._promised:
                self._verify()
            place.tar.finish()
            diff_id = ingest.finish().diff_id
        home.seal([*self._layers, diff_id])
        return diff_id

    def _verify(self) -> None:
        """A directory that was looked at as a whole is listed after that: nothing may have changed in between."""
        promised, found = self._promised, self._found
        self._collected, self._found = False, []
        try:
            if self.digest() != promised:
                hint = "build again when nobody writes there, or leave it out with .dockerignore"
                raise Invalid(f"{self._whole or 'the context'} was changed while it was read", hint)
        finally:
            self._collected, self._found = True, found

    def _collect(self) -> None:
        self._collected = True
        step, tree, (target, is_directory) = self._step, self._tree, self._target
        sources: list[str] = []
        for source in step.sources:
            if not step.unpack or step.parents:
                sources.append(source)
                continue
            found = tree.matches(source)
            sources += [escaped(path) for path in found if not self._unpacked(step, tree, path, target)]
        entries = tree.copies(
            tuple(sources),
            target,
            target_is_directory=is_directory,
            excludes=step.excludes,
            parents=step.parents,
        )
        self._found += [(self._finished(step, entry), tree) for entry in entries]
        most = from_environment().max_entries
        if len(self._found) > most:  # before all of them are read
            hint = "name less, or ignore some; LIMPET_MAX_LAYER_ENTRIES sets the limit"
            raise Invalid(f"{len(self._found)} files are more than a layer may have: {most}", hint)
        for file in step.files:
            goal = posixpath.join(target, file.name) if is_directory else target
            data = file.content.encode(errors="surrogateescape")
            entry = Entry(file.name, goal, stat.S_IFREG | 0o644, len(data))
            self._found.append((self._finished(step, entry), Text(data)))

    def _look_up(self, chown: str) -> tuple[int, int]:
        """Names are those of the image, also for --link."""
        if self._layers == self._beneath:
            return owner(self._root, chown)
        root = driver(self._store).mount(self._beneath)
        try:
            return owner(root, chown)
        finally:
            os.close(root)

    def _fetch(self, added: Added) -> None:
        step, (target, is_directory) = self._step, self._target
        archive = added.archive()
        if archive is not None and self._members(step, *archive, target):
            return
        found = added.files(step, target, target_is_directory=is_directory)
        self._found += [(self._finished(step, entry), source) for entry, source in found]

    def _unpacked(self, step: Copy, tree: Tree, path: str, target: str) -> bool:
        """Whether it is an archive; then its members are taken."""
        if not tree.is_file(path):
            return False
        fd = tree.open(path)
        try:
            return self._members(step, fd, path, target)
        finally:
            os.close(fd)

    def _members(self, step: Copy, fd: int, name: str, target: str) -> bool:
        from limpet.build.copying.archive import Archive, is_archive  # few builds have one

        if not is_archive(fd):
            return False
        archive = Archive(self._store, fd, name)
        self._archives.append(archive)
        # As in BuildKit, --chown counts for what is unpacked, --chmod doesn't.
        step = replace(step, chmod="")
        self._found += [(self._finished(step, entry), archive) for entry in archive.entries(target)]
        return True

    def _finished(self, step: Copy, entry: Entry) -> Entry:
        if step.chown:
            entry = replace(entry, uid=self._owner[0], gid=self._owner[1])
        if step.chmod and not stat.S_ISLNK(entry.mode) and not entry.implied:
            is_directory = stat.S_ISDIR(entry.mode)
            mode = modes.changed(stat.S_IMODE(entry.mode), step.chmod, is_directory=is_directory)
            entry = replace(entry, mode=stat.S_IFMT(entry.mode) | mode)
        return entry

    def _add(self, place: Place, entry: Entry, source: Source) -> None:
        tar, name = place.tar, entry.target.strip("/")
        mtime_ns = self._epoch * 10**9 if entry.mtime_ns is None else min(entry.mtime_ns, self._epoch * 10**9)
        uid, gid, mode = entry.uid, entry.gid, stat.S_IMODE(entry.mode)
        if entry.implied:
            place.directory(name)
            return
        there = look(self._root, name)
        replaces = source in self._archives  # unpacking does, as tar(1); a copy does not
        if there is not None and stat.S_ISDIR(there.st_mode) != stat.S_ISDIR(entry.mode) and not replaces:
            kind, other = ("directory", "something else") if stat.S_ISDIR(entry.mode) else ("file", "a directory")
            hint = "name another destination, or RUN rm first"
            raise Invalid(f"cannot copy the {kind} {entry.path or name} to /{name}: it is {other}", hint)
        if stat.S_ISDIR(entry.mode):
            if place.take(name):
                tar.directory(name, mode, uid, gid, mtime_ns, source.xattrs(entry))
        elif entry.same_as:
            tar.hard_link(name, entry.same_as.strip("/"), mtime_ns=mtime_ns)
        elif stat.S_ISLNK(entry.mode):
            tar.symlink(name, entry.link, uid, gid, mtime_ns, source.xattrs(entry))
        elif stat.S_ISREG(entry.mode):
            source.write(tar, entry, mtime_ns)
        else:
            tar.special(name, entry.mode, entry.device, uid, gid, mtime_ns, source.xattrs(entry))
