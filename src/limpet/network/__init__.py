"""Addresses of containers on the host's network, their publication and names; private networks (docs/network.md).

The latter's libraries (`private/`) are loaded only where a container is on one.
"""
