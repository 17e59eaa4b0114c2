"""BuildKit's cache config, version 0, as data (moby/buildkit cache/remotecache/v1/types/spec.go, doc.go).

    {"layers":  [{"blob": DIGEST, "parent": INDEX or -1}, …],
     "records": [{"digest": DIGEST, "layers": [{"layer": INDEX, "createdAt": TIME}],
                  "chains": [{"layers": [INDEX, …]}], "inputs": [[{"link": INDEX}], …]}, …]}

The digest of a record is of what a step depends on. BuildKit's is made of its own graph, ours of our key: neither finds
the other's steps, and both pass over them. Records with inputs are BuildKit's alone, as our key has all inputs in it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.oci import digest as digests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
INLINE = "moby.buildkit.cache.v0"
"""The field of an image's config with the records, in base64 (cache/remotecache/inline/inline.go)."""

UNCOMPRESSED = "containerd.io/uncompressed"
CREATED = "buildkit/createdat"
MAX_BYTES = 4 << 20
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob and the index of the layer beneath it, -1 for none."""

    blob: str
    parent: int


def record_digest(key: str) -> str:
    """The digest by which a step of ours is known: of its key, so that no digest of BuildKit's can be the same."""
    return f"sha256:{hashlib.sha256(f'limpet.build.v1 {key}'.encode()).hexdigest()}"


def encode(layers: Sequence[Layer], steps: Mapping[str, int], created: str) -> bytes:
    """`steps`: key → index of its layer. `created` is a time as RFC 3339 has it. The same bytes for the same cache."""
    whole = {
        "layers": [{"blob": layer.blob, "parent": layer.parent} for layer in layers],
        "records": _records(steps, created),
    }
    return json.dumps(whole, separators=(",", ":")).encode()


def encode_inline(steps: Mapping[str, int], created: str) -> bytes:
    """The records alone: the layers are the image's."""
    return json.dumps(_records(steps, created), separators=(",", ":")).encode()


def _records(steps: Mapping[str, int], created: str) -> list[dict[str, Any]]:
    found = [
        {"layers": [{"layer": index, "createdAt": created}], "digest": record_digest(key)}
        for key, index in steps.items()
    ]
    return sorted(found, key=lambda each: str(each["digest"]))


def decode(data: bytes) -> dict[str, str]:
    """Record digest → blob of the topmost layer of its result. Raises Invalid for what isn't a cache config."""
    whole = _json(data)
    if not isinstance(whole, dict):
        raise Invalid("the cache config is not a JSON object")
    blobs = []
    for layer in _list(whole, "layers"):
        blob = layer.get("blob")
        blobs.append(digests.check(blob) if isinstance(blob, str) else "")
    return {digest: blobs[index] for digest, index in _steps(_list(whole, "records"), len(blobs)) if blobs[index]}


def decode_inline(data: bytes, count: int) -> dict[str, int]:
    """Record digest → index among the `count` layers of the image."""
    whole = _json(data)
    if not isinstance(whole, list):
        raise Invalid("the cache in the image's config is not a list")
    return dict(_steps(_list({"records": whole}, "records"), count))


def _steps(records: list[dict[str, Any]], count: int) -> list[tuple[str, int]]:
    """(digest, index of its layer) of each record that could be ours."""
    found = []
    for record in records:
        digest = record.get("digest")
        if not isinstance(digest, str) or record.get("inputs"):
            continue
        indexes = [result.get("layer", 0) for result in _list(record, "layers")]
        for chain in _list(record, "chains"):
            chained = chain.get("layers")
            indexes += chained[-1:] if isinstance(chained, list) else []
        for index in indexes:
            if not isinstance(index, int) or not 0 <= index < count:
                raise Invalid(f"the cache config has no layer {str(index)[:20]}")
            found.append((digest, index))
    return found


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Invalid("the cache config is not JSON") from None


def _list(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = value.get(key) or []
    if not isinstance(found, list) or len(found) > _MOST or not all(isinstance(each, dict) for each in found):
        raise Invalid(f"the cache config: {key} is not a list of at most {_MOST} objects")
    return found
