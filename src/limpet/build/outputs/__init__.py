"""Where a build's result goes: the store, a registry, archives, the caller's directories.

request    what is asked for, as data
grammar    `--output`, `--push`, `--load`, `--annotation`: text to a request
deliver    results to all outputs of a request; says what their digests are
files      the file system of a result, as a directory or a tar
"""
