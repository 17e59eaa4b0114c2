"""solver: a plan becomes layers, stage by stage; `execute` beside it is the way in.

job          what all stages of one build share, and what each has come to
once         equal steps of several stages or builds are done by one of them
schedule     stages at once
stage        the steps of one stage, in order
keys         by what a step's result is found again, in the cache (`build.caching.steps`)
origins      where COPY and the mounts of RUN take their files
"""
