"""Copies of containers: snapshots of their files, checkpoints of their processes."""
