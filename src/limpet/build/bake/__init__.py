"""bake: many builds from one file: `docker-bake.hcl`, `docker-bake.json`, the `build:` sections of Compose files.

    hcl/        the language of the files
    files       which files are read
    fields      the attributes of a target: what kind each is, how two become one
    definition  HCL and JSON files to groups and targets: variables, functions, `matrix`
    compose     Compose files to the same
    overrides   `--set`, `--push`, `--load` and the like
    selection   what was asked for: groups, patterns, `inherits`, `target:` contexts
    show        `--print` and `--list`
    run         a target to a build

Source: docker/buildx docs/bake-reference.md, bake/bake.go. No module but `files` and `run` does I/O.
"""
