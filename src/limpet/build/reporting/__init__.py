"""reporting: what a build tells while it runs and afterwards. `limpet.cli.building` shows it.

report    events, as plain data
record    what they add up to; `profile` a picture of that, `logs` what is kept of it
masking   hides secrets in what steps print
hints     why a RUN may have failed; `copyups`: what a chmod in it cost
"""
