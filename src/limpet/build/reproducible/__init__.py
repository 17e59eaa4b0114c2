"""reproducible: a build done twice, and what came out differently, with the step, the bytes and the usual reason.

    twice      the second build, in other conditions, each step on what the first one made of the steps before it
    differ     two layers held against each other: names, attributes, ranges of bytes
    inside     what differs within an archive or a compiled file
    reasons    why that usually is, and the remedy
    report     all of it for a person

The second build shares nothing with the first but the plan and the base images (`twice` says what is different).
"""
