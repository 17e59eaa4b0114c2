"""The text of a Dockerfile to instructions, and instructions to a plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build import plan
from limpet.build.dockerfile import parse
from limpet.errors import Invalid, LimpetError

EMPTY = plan.Config(env=(("PATH", "/bin"),))


def names(text: str) -> list[tuple[str, str, int]]:
    return [(each.name, each.text, each.line) for each in parse(text)]


def test_comments_continuations_and_blank_lines() -> None:
    text = (
        "# syntax=docker/dockerfile:1\n"
        "\n"
        "  # a comment with blanks before it\n"
        "from debian:12\n"
        "RUN apt-get update && \\\n"
        "# a comment within\n"
        "\n"
        "    apt-get install -y \\\n"
        "    curl\n"
        'CMD ["sh", "-c", "echo # no comment"]\n'
        "RUN echo last \\"
    )
    assert names(text) == [
        ("FROM", "debian:12", 4),
        ("RUN", "apt-get update &&     apt-get install -y     curl", 5),
        ("CMD", '["sh", "-c", "echo # no comment"]', 10),
        ("RUN", "echo last", 11),
    ]


def test_another_escape_character() -> None:
    assert names("# escape=`\nFROM a\nRUN x `\n y\\\n") == [("FROM", "a", 2), ("RUN", "x  y\\", 3)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("[]", ()),
        ("['a']", None),
        ('["a"', None),
        ('["a", 1]', None),
        ("a b", None),
    ],
)
def test_the_json_form_is_strict_json_or_it_is_the_shell_form(text: str, words: tuple[str, ...] | None) -> None:
    assert parse(f"FROM x\nCMD {text}")[1].words == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Dockerfile: no instructions"),
        ("FROM a\nCOPPY a b", "Dockerfile:2: unknown instruction COPPY >>> COPPY a b; did you mean COPY?"),
        ("FROM a\nRUN <<EOF\necho\nEOF", "Dockerfile:2: heredocs are not supported yet"),
        ("FROM a\nRUN", "Dockerfile:2: RUN needs a value >>> RUN"),
        ("FROM a\nADD a b", "Dockerfile:2: ADD is not supported yet >>> ADD a b"),
        ("FROM a\nCOPY --from=x a b", "Dockerfile:2: COPY --from is not supported yet >>> COPY --from=x a b"),
        ("RUN x", "Dockerfile:1: the first instruction must be FROM >>> RUN x"),
        ("FROM a b c", "Dockerfile:1: FROM takes one image >>> FROM a b c; FROM IMAGE [AS NAME]"),
        ("FROM a\nFROM b", "Dockerfile:2: more than one stage is not supported yet >>> FROM b"),
        ("FROM a\nCOPY x", "Dockerfile:2: COPY needs a source and a destination >>> COPY x"),
        ("FROM a\nCOPY ../x /", "Dockerfile:2: ../x lies outside the build context"),
        ("FROM a\nEXPOSE http", "Dockerfile:2: EXPOSE: 'http' is not a port"),
        ("FROM a\nENV =x", "Dockerfile:2: ENV: '=x' is not KEY=VALUE"),
        ("FROM a\nENV A='x", "Dockerfile:2: ENV: no closing quotation"),
        ("# escape=x\nFROM a", "Dockerfile: escape='x' is not an escape character"),
    ],
)
def test_mistakes_name_line_and_way_out(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan.make(parse(text), EMPTY)
    assert str(caught.value).startswith(message)


def test_a_plan() -> None:
    text = """
        FROM base AS x
        ENV DIR=/srv NAME="a b"
        WORKDIR $DIR
        WORKDIR sub
        COPY a b/*.txt ./
        COPY ["one file", "two"]
        RUN echo $NAME
        RUN ["true"]
        EXPOSE 80 53/udp 90-92
        ENV OLD style ${DIR}
        ENTRYPOINT ["server"]
        CMD ["--help"]
    """
    made = plan.make(parse(text), EMPTY)
    assert made.base == "base"
    copies = [step for step in made.steps if isinstance(step, plan.Copy)]
    assert [(step.sources, step.target) for step in copies] == [
        (("a", "b/*.txt"), "/srv/sub/"),
        (("one file",), "/srv/sub/two"),
    ]
    runs = [step for step in made.steps if isinstance(step, plan.Run)]
    assert [step.argv for step in runs] == [("/bin/sh", "-c", "echo $NAME"), ("true",)]
    assert runs[0].config.workdir == "/srv/sub"
    assert made.config == plan.Config(
        env=(("PATH", "/bin"), ("DIR", "/srv"), ("NAME", "a b"), ("OLD", "style /srv")),
        workdir="/srv/sub",
        exposed=("80/tcp", "53/udp", "90/tcp", "91/tcp", "92/tcp"),
        entrypoint=("server",),
        command=("--help",),
    )


def test_an_entry_point_forgets_the_command_of_the_base() -> None:
    base = plan.Config(command=("base-command",))
    assert plan.make(parse('FROM a\nENTRYPOINT ["x"]'), base).config.command is None
    assert plan.make(parse('FROM a\nCMD ["y"]\nENTRYPOINT ["x"]'), base).config.command == ("y",)
    assert plan.make(parse("FROM a"), base).config.command == ("base-command",)


@given(st.text(max_size=200))
def test_any_text_gives_instructions_or_one_error(text: str) -> None:
    try:
        found = parse(text)
    except LimpetError as e:
        found = []
        message = e.message
    else:
        message = ""
    assert "\n" not in message
    assert bool(found) != bool(message)


@given(st.dictionaries(st.sampled_from(["A", "B_1"]), st.text("ab$", max_size=3)), st.text("AB_1${}\\ x", max_size=20))
def test_expansion_never_fails_and_leaves_plain_text_alone(values: dict[str, str], text: str) -> None:
    expanded = plan.expand(text, tuple(values.items()))
    if "$" not in text:
        assert expanded == text
