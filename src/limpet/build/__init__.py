"""build: a Dockerfile in, an image out: text → instructions → plan → image.

    language/    the Dockerfile's text to instructions; .dockerignore
    planner      a Dockerfile to a plan (`plan`, plain data): which stages, in which order
    stageplan    one stage of it, with `copyplan`
    grouped      the digest of what is copied, by directories, so that what did not change is known
    graph        a plan as a picture
    reading      the Dockerfile and .dockerignore, from where they are
    context      where COPY takes files from; `archive` what ADD unpacks; `digests` what earlier builds found out
    sources/     what is fetched, by HTTP and by git, and contexts that are no directory
    execute      a plan to an image's config and layers, by way of `solver/`: keys, what is cached, the stages' steps
    caching/     what a step made, by its key: kept, brought from elsewhere, exported, pruned
    bake/        many builds of one file
    copy, run    what makes a layer; `place` says what is where in the image
    debugshell   a shell in a RUN that failed
    conditions   what the command line allows and sets for RUN; `devices` of `RUN --device`
    keyagent     an agent for `--ssh NAME=KEY`
    secrecy      whether a step leaves a secret in the image; `masking` hides them in what it prints
    stepmounts   the mounts of one RUN, with `cachemounts` and `stubs`
    report       what a build tells while it runs: events, which `limpet.cli` shows; `record` what they add up to,
                 `profile` a picture of that, `logs` what is kept of it
    hints        why a RUN may have failed (`stepfiles`: what it left); `copyups` what a chmod in it cost
    attest/      what is said of a result beside it: what is in it, how it was built
    inspector    what may look on meanwhile: `explain` and `reproducible`
    build        all of it, as `limpet build` and `limpet up` call it

No module below `execute` makes anything; `language` does no I/O at all.
"""
