"""Where a container's output can go beside the json-file of `logfile`, and what the drivers share.

`choice` says which drivers and options there are, `opening` makes the one that a container has. A driver is an object
with `write`, `flush`, `close`; those of `syslog` and `journald`, and every one with mode=non-blocking, live in a
process of their own (`writer`), so that the monitor never waits for them. Only containers that ask for one import this.
"""
