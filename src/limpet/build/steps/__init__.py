"""steps: a RUN step in a container that is lighter than others: no row, no log, no monitor.

runner          what the builder asks, and how it follows a step
runnerprocess   the small process that starts the steps: a fork of it costs less than one of the builder
cancelled       what ends a step that nobody wants any more
trash           what steps leave behind goes while the next ones run
"""
