"""oci: the open formats as data: references, digests, descriptors, manifests, configs, platforms. No I/O."""
