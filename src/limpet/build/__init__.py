"""build: a Dockerfile in, an image out: text → instructions → plan → image.

    language/      the Dockerfile's text to instructions; .dockerignore
    reading        the Dockerfile and .dockerignore, from where they are
    planning/      instructions to a plan, plain data
    sources/       what is fetched, by HTTP and by git, and contexts that are no directory
    bases          images that a Dockerfile names
    execute        a plan to an image's config and layers, by way of
    solver/        which steps are cached, which run now, what waits for what
    copying/       COPY and ADD
    steps/         RUN
    caching/       what a step made, by its key: kept, brought from elsewhere, exported, pruned
    reporting/     what a build tells
    inspector      what may look on meanwhile: explain/ and reproducible/
    outputs/       where the result goes
    attest/        what is said of a result beside it: what is in it, how it was built
    bake/          many builds of one file
    build          all of it, as `limpet build` and `limpet up` call it

`language` and `planning` make nothing; `language` does no I/O at all.
"""
