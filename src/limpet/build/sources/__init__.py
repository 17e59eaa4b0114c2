"""sources: where a build takes files from that are not in a directory of this machine.

    reference    which texts are URLs and which git repositories, and what they say
    kept         what was fetched before: one directory for each address, beside the cache mounts
    http         a file by HTTP, asked for again only if it changed
    git          a commit of a repository, by the machine's program (`gitprogram`)
    added        what ADD fetches, as files to copy
    contexts     what `limpet build` is given, as a directory; `unpack` makes one of an archive
    named        `--build-context`: what a name of the Dockerfile stands for

What is kept saves time only: the key of a step has the digest of the file, or the commit, and never the address.
"""
