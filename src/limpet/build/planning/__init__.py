"""planning: a Dockerfile to a plan, plain data that any front end may make and any solver execute. Makes nothing.

planner     which stages the target needs, in which order
stageplan   one stage of it, with `copyplan` for COPY and ADD
merging     plans for several platforms as one
plan        the plan itself, and its JSON
graph       a plan as a picture
"""
