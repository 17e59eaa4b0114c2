"""A software bill of materials: an SPDX 2.3 document in JSON (spdx.github.io/spdx-spec/v2.3).

The same packages give the same document: its time is the image's, its namespace is made of what it says.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from limpet import __version__
from limpet.build.attest import packages
from limpet.build.attest.statement import SPDX, Attestation
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.build.attest.packages import Package
    from limpet.store.store import Store

FILENAME = "sbom.spdx.json"
_NOTHING = "NOASSERTION"
_IMAGE = "SPDXRef-Image"


def attestation(store: Store, layers: Sequence[str], name: str, epoch: int) -> Attestation:
    """What is in the root of these layers. `name`: of the image, for people. The caller holds `store.lease()`."""
    root = driver(store).mount(layers)
    try:
        found = packages.find(root)
    finally:
        os.close(root)
    return Attestation(SPDX, document(found, name, epoch), FILENAME)


def document(found: Sequence[Package], name: str, epoch: int) -> dict[str, Any]:
    entries = [_package(each) for each in found]
    image = {
        "SPDXID": _IMAGE,
        "name": name,
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": _NOTHING,
        "copyrightText": _NOTHING,
        "primaryPackagePurpose": "CONTAINER",
    }
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE)]
    relations += [(_IMAGE, "CONTAINS", each["SPDXID"]) for each in entries]
    content = json.dumps([name, epoch, entries], sort_keys=True).encode()
    identity = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=5)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/limpet-{identity}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "creators": [f"Tool: limpet-{__version__}"],
        },
        "packages": [image, *entries],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }


def _package(one: Package) -> dict[str, Any]:
    identity = hashlib.sha256(f"{one.purl}\0{one.source}".encode(errors="surrogateescape")).hexdigest()[:16]
    return {
        "SPDXID": f"SPDXRef-Package-{identity}",
        "name": one.name,
        "versionInfo": one.version,
        **({"supplier": f"Organization: {one.supplier}"} if one.supplier else {}),
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": one.license or _NOTHING,
        "copyrightText": _NOTHING,
        "sourceInfo": f"acquired package info from {one.source}",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.purl}
        ],
    }
