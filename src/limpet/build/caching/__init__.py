"""The build cache: what a step made, by its key; where it is kept, and how it travels.

    caches     all of it for one build: opened, asked, written
    steps      what one build asks the cache for and puts there, and what of it the build used
    specs      `--cache-from` and `--cache-to` as people write them
    records    BuildKit's cache config (`application/vnd.buildkit.cacheconfig.v0`) as data
    sources    a cache in a registry, a directory, an image: which steps it has, and their layers
    export     a build's steps as such a cache
    usage      what the cache holds on disk, and what goes when it is too much
    mounts     a cache mount (`build.cachemounts`) as a tar, out and in

`records` and `specs` do no I/O.
"""
