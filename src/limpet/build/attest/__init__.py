"""attest: statements about a build's result, in in-toto's form, stored with the image as BuildKit stores them.

    request      what is asked for: `--sbom`, `--provenance`, `--attest`
    statement    a predicate and what it is about, as bytes; all of an image's as a manifest
    provenance   how it was built (SLSA v1, v0.2)
    sbom         what is in it (SPDX 2.3)
    packages     the package databases of a root file system, read for it

Nothing here changes the image: its digest is the same with and without. None is made unless asked for.
"""
