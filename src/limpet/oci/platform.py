"""Platforms, and which image of an index runs on one (containerd/platforms: `database.go`, `compare.go`).

An image for another platform may still run: a newer ARM runs older ARM code, amd64 runs 386. `ranked` gives what a
platform can run, the best first, as containerd's `Only` does; `select` takes the first that the index has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from limpet.errors import Invalid, NotFound
from limpet.oci import media

if TYPE_CHECKING:
    from typing import Any

    from limpet.oci.manifest import Descriptor, Index

_ARCHITECTURES = {
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "android", "wasi"})
_KNOWN = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x sparc64 wasm".split()
)
_GOOS = _SYSTEMS | set("aix dragonfly hurd illumos ios js nacl plan9 wasip1 zos macos".split())
_GOARCH = _KNOWN | set("amd64p32 arm64be armbe mips64p32 mips64p32le ppc riscv s390 sparc".split())


@dataclass(frozen=True)
class Platform:
    """Always normalised: amd64, not x86_64; no variant where it is the default one (amd64 v1, arm64 v8)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    written: str = field(default="", compare=False)
    """The variant as a document has it, where that is another: what is passed on says it as it came."""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            found["os.version"] = self.os_version
        if self.os_features:
            found["os.features"] = list(self.os_features)
        if self.written or self.variant:
            found["variant"] = self.written or self.variant
        return found

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Platform:
        """From a descriptor's `platform` or an image config. Raises Invalid if a field is no text."""
        texts = [value.get(key) or "" for key in ("os", "architecture", "variant", "os.version")]
        features = value.get("os.features") or []
        if not all(isinstance(text, str) for text in texts) or not isinstance(features, list):
            raise Invalid("platform: os, architecture, variant and os.version are texts, os.features is a list")
        system, architecture, variant, version = texts
        found = normalise(system, architecture, variant, version, tuple(str(feature) for feature in features))
        return found if found.variant == variant else replace(found, written=variant)


def normalise(
    system: str, architecture: str, variant: str = "", os_version: str = "", os_features: tuple[str, ...] = ()
) -> Platform:
    """containerd's `Normalize`."""
    system, architecture, variant = system.lower(), architecture.lower(), variant.lower()
    if system == "macos":
        system = "darwin"
    if architecture in _ARCHITECTURES:
        architecture, implied = _ARCHITECTURES[architecture]
        variant = variant or implied
    if variant.isdecimal():
        variant = f"v{variant}"
    if architecture == "arm":
        variant = variant or "v7"
    elif (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0")):
        variant = ""
    elif (architecture, variant) == ("arm64", "v9.0"):
        variant = "v9"
    return Platform(system, architecture, variant, os_version, os_features)


def parse(text: str) -> Platform:
    """What `--platform` takes: `linux/arm64`, `linux/arm/v7`, `arm64`, `linux`. Raises Invalid."""
    parts = text.strip().split("/")
    if not all(
        part and part.isascii() and part.replace("_", "").replace("-", "").replace(".", "").isalnum() for part in parts
    ):
        raise Invalid(f"{text!r} is not a platform", "write it as os/architecture[/variant], such as linux/arm64")
    here = host()
    if len(parts) == 1:
        if parts[0].lower() in _SYSTEMS | {"macos"}:
            return normalise(parts[0], here.architecture, here.variant)
        found = normalise(here.os, parts[0])
        if found.architecture in _KNOWN:
            return found
        raise Invalid(f"{text!r}: unknown operating system or architecture", "write it as os/architecture[/variant]")
    if len(parts) > 3:
        raise Invalid(f"{text!r} is not a platform", "write it as os/architecture[/variant], such as linux/arm64")
    system, architecture, *variant = parts
    return normalise(system, architecture, variant[0] if variant else "")


def check(system: str, architecture: str) -> None:
    """Raises Invalid for what no image can be for: values of GOOS and GOARCH are known (OCI image spec, "Image Index"),
    and the names for them that `normalise` knows."""
    for what, value, known in (
        ("an operating system", system, _GOOS),
        ("an architecture", architecture, _GOARCH | set(_ARCHITECTURES)),
    ):
        if value and value.lower() not in known:
            from limpet.nearest import nearest

            near = nearest(value, sorted(known))
            hint = f"did you mean {near}?" if near else f"there are: {', '.join(sorted(known))}"
            raise Invalid(f"{value[:60]!r} is not {what}", hint)


def host() -> Platform:
    """The platform of this machine."""
    return normalise("linux", os.uname().machine)


def ranked(wanted: Platform) -> list[Platform]:
    """What `wanted` can run, the best first (containerd `platformVector`)."""
    system, variant = wanted.os, wanted.variant
    found = [normalise(system, wanted.architecture, variant)]
    if wanted.architecture == "amd64":
        found += [normalise(system, "amd64", f"v{n}") for n in range(_level(variant) - 1, 0, -1)]
        found.append(normalise(system, "386"))
    elif wanted.architecture == "arm":
        found += [normalise(system, "arm", f"v{n}") for n in range(_level(variant) - 1, 4, -1)]
    elif wanted.architecture == "arm64":
        found += [normalise(system, "arm64", older) for older in _older_arm64(variant)]
        found += [normalise(system, "arm", f"v{n}") for n in range(8, 4, -1)]
    return found


def select(index: Index, wanted: Platform) -> Descriptor:
    """The image of `index` for `wanted`. Raises NotFound, listing what there is.

    An entry without a platform is taken if no other fits. Attestations and the like ("unknown/unknown") never fit.
    """
    entries = [entry for entry in index.manifests if _is_image(entry)]
    for candidate in ranked(wanted):
        for entry in entries:
            if entry.platform is not None and _fits(entry.platform, candidate):
                return entry
    for entry in entries:
        if entry.platform is None:
            return entry
    there = sorted({str(entry.platform) for entry in entries if entry.platform is not None})
    raise NotFound(
        f"no image for {wanted}", f"there is: {', '.join(there[:40])}" if there else "the index has no image at all"
    )


def _is_image(entry: Descriptor) -> bool:
    if entry.media_type not in media.MANIFESTS | media.INDEXES | {""}:
        return False
    if entry.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return False
    return entry.platform is None or entry.platform.os != "unknown"


def _fits(offered: Platform, wanted: Platform) -> bool:
    return (offered.os, offered.architecture, offered.variant) == (wanted.os, wanted.architecture, wanted.variant)


def _level(variant: str) -> int:
    """v3 → 3; 1 if there is none."""
    number = variant.removeprefix("v")
    return min(int(number), 99) if number.isdecimal() else 1


def _older_arm64(variant: str) -> list[str]:
    """Arm's A-profile: v9.x contains v8.(x+5), and each minor version the ones before it."""
    major, _, minor = variant.removeprefix("v").partition(".")
    if not minor.isdecimal() and minor:
        return []
    number = min(int(minor or 0), 20)
    if major == "9":
        nines = [f"v9.{n}" for n in range(number - 1, -1, -1)]
        return nines + [f"v8.{n}" for n in range(min(number + 5, 9), -1, -1)]
    if major == "8":
        return [f"v8.{n}" for n in range(number - 1, -1, -1)]
    return []
