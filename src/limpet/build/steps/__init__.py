"""steps: RUN, in a container that is lighter than others: no row, no log, no monitor.

run             one step: from its mounts to its layer
runner          what the builder asks, and how it follows a step
runnerprocess   the small process that starts the steps: a fork of it costs less than one of the builder
cancelled       what ends a step that nobody wants any more
trash           what steps leave behind goes while the next ones run
stepmounts      the mounts of one step, with `cachemounts` and `stubs`; `keyagent` for `--ssh NAME=KEY`
conditions      what the command line allows and sets; `devices` of `RUN --device`, `foreign` machines
secrecy         whether a step leaves a secret in the image
stepfiles       what a step left, for who asks why it failed; `debugshell`: a shell in it
"""
