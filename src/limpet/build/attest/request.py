"""`--attest`, `--sbom`, `--provenance` as docker/buildx reads them (`util/buildflags/attests.go`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language.flags import boolean, fields
from limpet.errors import Invalid
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYS = {
    "sbom": {"disabled"},
    "provenance": {"disabled", "mode", "builder-id", "reproducible", "version", "inline-only", "filename"},
}
_HINT = "as in --attest type=provenance,mode=max or --attest type=sbom"


@dataclass(frozen=True, slots=True)
class Provenance:
    """`version`: "v1" or "v0.2". `reproducible`: the statement says so, and its times are the image's."""

    mode: str = "max"
    builder_id: str = ""
    reproducible: bool = False
    version: str = "v1"
    inline_only: bool = False
    filename: str = "provenance.json"


@dataclass(frozen=True, slots=True)
class Attests:
    sbom: bool = False
    provenance: Provenance | None = None

    def __bool__(self) -> bool:
        return self.sbom or self.provenance is not None


def attests(texts: Sequence[str], sbom: str | None, provenance: str | None) -> Attests:
    """`--attest`, several; of the other two the value, "" for one without, None if not given. The last one of a type
    counts, and the short ones more. Raises Invalid.
    """
    found = [_fields(text, f"--attest {text}") for text in texts]
    for kind, text in (("sbom", sbom), ("provenance", provenance)):
        if text is not None:
            found.append(_short(kind, text or "true"))
    chosen: dict[str, dict[str, str]] = {}
    for values in found:
        kind = values.pop("type")
        chosen[kind] = values
    for kind, values in list(chosen.items()):
        if _boolean(values.pop("disabled", "false"), f"{kind}: disabled"):
            del chosen[kind]
    return Attests("sbom" in chosen, _provenance(chosen["provenance"]) if "provenance" in chosen else None)


def _short(kind: str, text: str) -> dict[str, str]:
    """`--sbom=true`, `--provenance=mode=max`."""
    try:
        return {"type": kind, "disabled": "false" if boolean(text) else "true"}
    except ValueError:
        return _fields(f"type={kind},{text}", f"--{kind} {text}")


def _fields(text: str, shown: str) -> dict[str, str]:
    try:
        row = fields(text)
    except ValueError as e:
        raise Invalid(f"{shown}: {e}", _HINT) from None
    values = {}
    for field in row:
        key, equals, value = field.partition("=")
        if not equals:
            raise Invalid(f"{shown}: '{field}' is not KEY=VALUE", _HINT)
        values[key.strip().lower()] = value
    kind = values.get("type", "")
    if kind not in _KEYS:
        raise Invalid(f"{shown}: {f'unknown type {kind!r}' if kind else 'a type is needed'}", _HINT)
    for key in values:
        if key == "generator":
            raise Invalid(f"{shown}: another generator can't be run", "limpet reads the package databases itself")
        if key != "type" and key not in _KEYS[kind]:
            raise Invalid(f"{shown}: unknown key '{key}'", f"known are {', '.join(sorted(_KEYS[kind]))}")
    return values


def _provenance(values: dict[str, str]) -> Provenance:
    mode, version = values.get("mode", "max"), values.get("version", "v1")
    if mode not in ("min", "max"):
        raise Invalid(f"provenance: mode={mode}", "min and max are known")
    if version not in ("v1", "v0.2"):
        raise Invalid(f"provenance: version={version}", "v1 and v0.2 are known")
    name = values.get("filename", "provenance.json")
    if not name or "/" in name or name in (".", ".."):
        raise Invalid(f"provenance: filename={name}", "a name without a directory")
    return Provenance(
        mode,
        values.get("builder-id", ""),
        _boolean(values.get("reproducible", "false"), "provenance: reproducible"),
        version,
        _boolean(values.get("inline-only", "false"), "provenance: inline-only"),
        name,
    )


def _boolean(text: str, what: str) -> bool:
    try:
        return boolean(text)
    except ValueError as e:
        raise Invalid(f"{what}: {e}", "true or false") from None
