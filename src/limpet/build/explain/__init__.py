"""explain: why a step was in the cache or not, by what its key was made of the last time.

    parts      what a key is made of, by name: command, variables, mounts, files
    records    that, kept for the steps that were done, and what builds of a Dockerfile last consisted of
    compare    two steps' parts: what differs, in words
    explainer  the inspector that does it while a plan is executed

All that is kept lies in `<root>/cache`: anything may remove it at any time, and then less can be said.
"""
