"""The images of the benchmark: a real Debian root file system, once as one big layer and once as twenty.

Made with `mmdebstrap` from the machine's Debian mirror, kept in .cache/bench; delete that folder to make them anew.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = "python3,perl,curl,iproute2,less,vim-tiny"
BIG_ENTRIES, BIG_BYTES = 10_000, 214_000_000


def make(cache: Path) -> dict[str, Path]:
    """Name → OCI layout directory: `big` (1 layer of about 200 MB and 10,000 entries), `many` (20 layers)."""
    cache.mkdir(parents=True, exist_ok=True)
    rootfs = cache / "rootfs.tar"
    if not rootfs.exists():
        print(f"making a Debian root file system with mmdebstrap ({PACKAGES})")
        new = cache / "rootfs.new.tar"
        # fmt: off
        subprocess.run(["mmdebstrap", "--variant=apt", f"--include={PACKAGES}", "--quiet", "bookworm", str(new)],
                       check=True)
        # fmt: on
        new.rename(rootfs)
    layouts = {"big": cache / "big", "many": cache / "many"}
    if not (layouts["big"] / "index.json").exists():
        _layout(layouts["big"], "big", _split(rootfs, 1))
    if not (layouts["many"] / "index.json").exists():
        _layout(layouts["many"], "many", _split(rootfs, 20))
    return layouts


def _split(rootfs: Path, count: int) -> list[bytes]:
    """The first members of `rootfs`, up to the size wanted, in `count` tars of about equal size."""
    buffers = [io.BytesIO() for _ in range(count)]
    with tarfile.open(rootfs) as source:
        outputs = [tarfile.open(fileobj=b, mode="w", format=tarfile.PAX_FORMAT) for b in buffers]
        current = total = entries = 0
        # Programs and libraries first, so that the image runs whatever is cut off.
        members = sorted(source, key=lambda m: m.name.startswith(("./usr/share", "./var")))
        home: dict[str, int] = {}
        for member in members:
            if total > BIG_BYTES or entries >= BIG_ENTRIES:
                break
            data = source.extractfile(member) if member.isreg() else None
            target = home.get(member.linkname, current) if member.islnk() else current
            home[member.name] = target
            outputs[target].addfile(member, data)
            entries += 1
            total += member.size
            current = min(count - 1, total * count // BIG_BYTES)
        for output in outputs:
            output.close()
    print(f"{count} layers: {entries} entries, {total / 1e6:.0f} MB of data")
    return [b.getvalue() for b in buffers]


def _layout(path: Path, name: str, tars: list[bytes]) -> None:
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [put(gzip.compress(tar, 6, mtime=0), "layer.v1.tar+gzip") for tar in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]},
        "history": [{"created_by": f"layer {i}"} for i in range(len(tars))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    descriptor = put(json.dumps(manifest).encode(), "manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
