"""build: a Dockerfile in, an image out: text → instructions → plan → image.

    words        quotes, escapes, variables of one word
    lines        physical lines to logical ones; directives; every character keeps its place
    dockerfile   text to instructions: flags, arguments, heredocs
    typed        instructions to what they mean (`instructions`), with `flags` and `mounts`; `program` a whole file
    planner      a Dockerfile to a plan (`plan`, plain data): which stages, which `variables`
    stageplan    one stage of it, with `copyplan` and `scope`
    graph        a plan as a picture
    checks       what is allowed and still worth a word (`notes` has the rules)
    ignore       .dockerignore
    digests      of the context's files, kept between builds
    context      where COPY takes files from; `archive` what ADD unpacks
    execute      a plan to an image: `copy` and `run` make layers, `place` says what is where in the image
    build        all of it, as `limpet build` and `limpet up` call it

No module below `execute` makes anything; those up to `checks` do no I/O at all.
"""
