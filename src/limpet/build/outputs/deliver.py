"""What a build made to all outputs that were asked for: files and archives first, then the store, then registries.

So a registry that refuses leaves what is on this machine. An image that no output keeps is never in the store.
"""

from __future__ import annotations

import os
import sys
from dataclasses import field
from typing import TYPE_CHECKING, Any

from limpet.build.attest import statement
from limpet.build.outputs import files
from limpet.build.outputs.request import DOCKER, LOCAL, OCI, STANDARD_OUTPUT, TAR
from limpet.errors import Invalid, LimpetError
from limpet.frozen import dataclass
from limpet.images import importer, package
from limpet.images.package import Form
from limpet.images.packing import PLAIN, Packing
from limpet.oci import config as configs
from limpet.oci import digest as digests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from limpet.build.attest.statement import Attestation
    from limpet.build.outputs.request import Annotation, Output, Wanted
    from limpet.build.reporting.report import Report
    from limpet.images.package import Member, Package
    from limpet.images.save import Saved
    from limpet.images.sink import TarSink
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.store.store import Store


@dataclass(frozen=True, slots=True)
class Result:
    """What was built for one platform: the config blob, the layers' diff IDs, bottom first, and what is said of it."""

    config: bytes
    layers: tuple[str, ...]
    said: tuple[Attestation, ...] = ()

    @property
    def platform(self) -> Platform:
        return configs.parse(self.config).platform

    @property
    def image_id(self) -> str:
        return digests.of(self.config)


@dataclass(slots=True)
class Delivered:
    """`id`: of the image, or the digest of the index of several; "" if only files were wanted. `kept`: the id of the
    image in the store, "" if none stays there.

    `metadata` is BuildKit's (`--metadata-file`).
    """

    id: str = ""
    kept: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def deliver(store: Store, results: Sequence[Result], wanted: Wanted, report: Report) -> Delivered:
    """Raises LimpetError; what was written until then stays. The caller holds `store.lease()`."""
    return _Delivery(store, results, wanted, report).run()


def check(wanted: Wanted, platforms: int) -> None:
    """What can be said before anything is built. Raises Invalid for outputs that can't hold so many platforms."""
    if wanted.attests and wanted.outputs and all(each.kind == DOCKER and each.dest for each in wanted.outputs):
        said = "a docker-archive has no place for what --sbom and --provenance say"
        raise Invalid(f"--output {wanted.outputs[0].text}: {said}", "type=oci has")
    for each in wanted.outputs:
        if platforms > 1 and each.kind == DOCKER and each.dest:
            raise Invalid(f"--output {each.text}: a docker-archive holds one platform", "type=oci holds several")
        if each.dest == STANDARD_OUTPUT and os.isatty(1):
            raise Invalid(f"--output {each.text}: standard output is a terminal", "give dest=FILE, or redirect it")
        if each.dest and each.dest != STANDARD_OUTPUT and each.kind != LOCAL and not each.layout:
            if os.path.isdir(each.dest):
                raise Invalid(f"--output {each.text}: {each.dest} is a directory", "dest names a file")
            parent = os.path.dirname(os.path.abspath(each.dest))
            if not os.path.isdir(parent):
                raise Invalid(f"--output {each.text}: there is no directory {parent}", "make it first")
        if each.layout:
            from limpet.images import save

            save.present(each.dest)
        if each.kind == LOCAL and os.path.lexists(each.dest) and not os.path.isdir(each.dest):
            raise Invalid(f"--output {each.text}: {each.dest} is no directory", "dest names a directory")
        noted = (*wanted.annotations, *each.annotations)
        if platforms == 1 and not wanted.attests and not each.is_files and any(one.place == "index" for one in noted):
            raise Invalid("an annotation of an index needs one: of one platform there is none", "leave out index:")


class _Delivery:
    def __init__(self, store: Store, results: Sequence[Result], wanted: Wanted, report: Report) -> None:
        self._store = store
        self._results = results
        self._wanted = wanted
        self._report = report
        self._members: dict[tuple[Any, ...], Member] = {}
        self._done = Delivered()

    def run(self) -> Delivered:
        outputs = self._wanted.outputs
        for each in outputs:
            if each.is_files:
                self._files(each)
            elif each.dest:
                self._archive(each)
        for each in outputs:
            if each.keep:
                self._keep(each)
        for each in outputs:
            if each.push:
                self._push(each)
        return self._done

    def _files(self, output: Output) -> None:
        split = len(self._results) > 1 if output.split is None else output.split
        if not split and len(self._results) > 1:
            raise Invalid(f"--output {output.text}: the platforms' files would be mixed", "leave out platform-split")
        trees = {str(one.platform).replace("/", "_") if split else "": one.layers for one in self._results}
        if output.kind == TAR:
            _to(output.dest, lambda file: files.write_tar(self._store, trees, file, self._statements(split)))
            self._wrote(output)
            return
        left = files.write_directory(self._store, trees, output.dest, self._statements(split))
        self._wrote(output)
        if left:
            named = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            self._report.say(f"{output.dest}: devices and sockets are left out: {named}")

    def _statements(self, split: bool) -> dict[str, bytes]:
        """What is said of files, by the path of its own file among them; no digest names what it is about."""
        found = {}
        for one in self._results:
            place = f"{str(one.platform).replace('/', '_')}/" if split else ""
            for said in one.said:
                if said.filename:
                    found[place + said.filename] = statement.statement(said, [])
        return found

    def _archive(self, output: Output) -> None:
        from limpet.images import save  # most builds write no archive
        from limpet.images.sink import DirectorySink, TarSink

        saved = [save.Saved(self._package(output), output.names or self._wanted.names)]
        if output.layout:
            save.write_layout(self._store, saved, DirectorySink(output.dest), save.present(output.dest))
        else:
            _to(output.dest, lambda file: self._write(saved, output.kind, TarSink(file)))
        self._wrote(output)
        self._tell(saved[0].package, saved[0].names)

    def _wrote(self, output: Output) -> None:
        if output.dest != STANDARD_OUTPUT:
            self._report.say(f"Wrote {output.dest}")

    def _write(self, saved: list[Saved], kind: str, sink: TarSink) -> None:
        from limpet.images import save

        write = save.write_layout if kind == OCI else save.write_docker
        write(self._store, saved, sink)
        sink.finish()

    def _keep(self, output: Output) -> None:
        names = output.names or self._wanted.names
        plain = not (output.push or output.form or self._annotations(output) or self._results[0].said)
        if len(self._results) == 1 and plain:
            # Nobody needs its layers compressed yet: a push does that when it comes.
            (one,) = self._results
            image = importer.add_image(self._store, one.config, one.layers, names)
            self._done.id = self._done.kept = image.id
            self._done.metadata |= {"containerimage.config.digest": image.id, "containerimage.digest": image.id}
            self._name(names)
            self._built(names)
            return
        built = self._package(output)
        self._done.kept = importer.add_package(self._store, built, names).id
        self._tell(built, names)
        self._built(names)

    def _built(self, names: Sequence[Reference]) -> None:
        for name in names:
            self._report.say(f"Built {name.familiar}")

    def _push(self, output: Output) -> None:
        from limpet.images import push

        built, names = self._package(output), output.names or self._wanted.names
        for done in push.push_package(self._store, names, built, by_digest=output.by_digest, progress=self._report):
            shown = done.name.familiar_name if output.by_digest else done.name.familiar
            self._report.say(f"Pushed {shown}@{done.digest}")
        self._tell(built, names)

    def _tell(self, built: Package, names: Sequence[Reference]) -> None:
        """What is known by now, as BuildKit names it."""
        metadata = self._done.metadata
        metadata["containerimage.descriptor"] = built.descriptor.to_dict()
        metadata["containerimage.digest"] = built.descriptor.digest
        if not built.index or self._results[0].said:
            metadata["containerimage.config.digest"] = built.members[0].image_id
        images = [member for member in built.members if member.image_id]
        # One image has the id that it has without statements about it.
        self._done.id = built.descriptor.digest if len(images) > 1 else images[0].image_id
        self._name(names)

    def _name(self, names: Sequence[Reference]) -> None:
        if names:
            self._done.metadata["image.name"] = ",".join(name.canonical for name in names)

    def _annotations(self, output: Output) -> tuple[Annotation, ...]:
        return (*self._wanted.annotations, *output.annotations) if output.kind != DOCKER else ()

    def _package(self, output: Output) -> Package:
        form = output.form or Form()
        noted = self._annotations(output)
        members = [self._member(one, output.kind, form, noted) for one in self._results]
        if output.kind != DOCKER:  # whose archive has no place for statements
            names = output.names or self._wanted.names
            members += [
                statement.member(image, one.said, names)
                for image, one in zip(members, self._results, strict=True)
                if one.said
            ]
        if len(members) == 1:
            return package.alone(members[0])
        return package.together(members, form, annotations=_of(noted, "index", None))

    def _member(self, one: Result, kind: str, form: Form, noted: Sequence[Annotation]) -> Member:
        if kind == DOCKER:  # its archive has plain tars
            form = Form(Packing(PLAIN))
        manifest, descriptor = _of(noted, "manifest", one.platform), _of(noted, "manifest-descriptor", one.platform)
        key = (one.image_id, form, tuple(manifest.items()), tuple(descriptor.items()))
        if key not in self._members:
            self._members[key] = package.member(
                self._store, one.config, one.layers, form, annotations=manifest, described=descriptor
            )
        return self._members[key]


def _of(noted: Sequence[Annotation], place: str, platform: Platform | None) -> Mapping[str, str]:
    """By key, so that the order in which they were given doesn't count."""
    found = {each.key: each.value for each in noted if each.place == place and each.platform in (None, platform)}
    return dict(sorted(found.items()))


def _to(dest: str, write: Callable[[BinaryIO], None]) -> None:
    if dest == STANDARD_OUTPUT:
        try:
            write(sys.stdout.buffer)
        except OSError as e:
            raise LimpetError(f"standard output: {e.strerror}", exit_code=1) from e
    else:
        from limpet.images import save

        save.to_file(dest, write, mode=0o666)  # the caller's own file, as his umask has it
