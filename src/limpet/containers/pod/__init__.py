"""Pods: containers that share namespaces, and live and die together."""
