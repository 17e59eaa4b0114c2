"""The Dockerfile language: text to instructions, each token with its place. No I/O.

words         quotes, escapes, variables of one word
lines         physical lines to logical ones; directives; every character keeps its place
dockerfile    text to instructions: flags, arguments, heredocs
typed         instructions to what they mean (`instructions`), with `flags`, `mounts`, `ports`; `program` all of a file
variables     ARG and ENV, by `scope`
checks        what is allowed and still worth a word (`notes` has the rules)
ignore        .dockerignore
"""
