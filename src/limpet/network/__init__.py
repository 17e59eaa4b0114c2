"""Addresses of containers on the host's network, their publication and names; private networks (docs/network.md)."""
