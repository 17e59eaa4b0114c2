"""The events of a build: as data, and in the order in which they are promised."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.language import dockerfile, program
from limpet.build.planning import planner
from limpet.build.planning.planner import Base, Request
from limpet.build.reporting import report

TEXTS = st.text(max_size=20)
EVENTS = st.one_of(
    st.builds(report.Began, st.floats(0, 1e9), st.integers(0, 99)),
    st.builds(report.Output, st.floats(0, 1e9), st.integers(0, 99), st.sampled_from((1, 2)), st.binary(max_size=50)),
    st.builds(report.Ended, st.floats(0, 1e9), st.integers(0, 99), st.just(report.RAN), TEXTS, TEXTS, st.integers(0)),
    st.builds(report.Note, st.floats(0, 1e9), st.just(0), TEXTS, st.booleans(), TEXTS, TEXTS, st.integers(0)),
    st.builds(
        report.Planned,
        st.floats(0, 1e9),
        TEXTS,
        TEXTS,
        st.integers(0, 9),
        st.tuples(
            st.builds(
                report.Step, st.integers(1, 9), TEXTS, TEXTS, TEXTS, st.just(1), st.just(1), st.just(1), st.just((1, 2))
            )
        ),
    ),
)


@given(EVENTS)
def test_events_go_through_a_pipe(event: report.Event) -> None:
    line = report.encode(event)
    assert line.index(b"\n") == len(line) - 1
    assert report.decode(line) == event
    assert type(report.decode(line)) is type(event)
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'["Nothing", 1]', b'["Began"]', b'["Began", 1, 2, 3, 4]'])
def test_what_is_no_event(line: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        report.decode(line)


def test_steps_are_numbered_over_all_stages_and_know_what_they_stand_on() -> None:
    text = (
        "FROM base AS a\nENV x=1\nRUN one\nRUN two\\\n  more\n"
        "FROM a AS b\nRUN three\n"
        "FROM base\nCOPY --from=a /x /x\nRUN --mount=type=bind,from=b,target=/b four\nWORKDIR /w\n"
    )
    whole = program.program(dockerfile.parse(text))
    made = planner.make(whole, lambda name, platform: Base("sha256:0", {}), Request("", {}, ""))
    steps = list(report.steps(made).values())
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.stage for step in steps] == ["a", "a", "b", "stage-2", "stage-2", "stage-2"]
    assert [step.kind for step in steps] == ["run", "run", "run", "copy", "run", "workdir"]
    assert [step.inputs for step in steps] == [(), (1,), (2,), (2,), (3, 4), (5,)]
    assert (steps[1].text, steps[1].line, steps[1].column) == ("RUN two  more", 4, 1)
