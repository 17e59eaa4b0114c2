"""The text of a Dockerfile to instructions: lines, flags, arguments, heredocs, places."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limpet.build.language.dockerfile import Instruction, parse
from limpet.errors import Invalid, LimpetError


def names(text: str) -> list[tuple[str, str, int]]:
    return [(each.name, each.text, each.line) for each in parse(text).instructions]


def only(text: str) -> Instruction:
    [found] = parse(text).instructions
    return found


def test_comments_continuations_and_blank_lines() -> None:
    text = (
        "# syntax=docker/dockerfile:1\n"
        "\n"
        "  # a comment with blanks before it\n"
        "from debian:12\n"
        "RUN apt-get update && \\\n"
        "# a comment within\n"
        "\n"
        "    apt-get install -y \\  \n"
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
    found = parse(text).instructions
    assert [each.empty_continuation for each in found] == [False, True, False, False]
    assert [(each.line, each.end_line) for each in found] == [(4, 4), (5, 9), (10, 10), (11, 11)]


def test_an_escaped_escape_character_at_the_end_continues_nothing() -> None:
    assert names("RUN a\\\\\nRUN b") == [("RUN", "a\\\\", 1), ("RUN", "b", 2)]


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    assert names("\ufeffFROM a\r\nRUN b \\\r\n c\r\n") == [("FROM", "a", 1), ("RUN", "b  c", 2)]


def test_directives() -> None:
    file = parse("#!/usr/bin/env x\n# Syntax = docker/dockerfile:1 \n#escape=`\n# check=skip=all\nRUN x `\n y\\\n")
    assert [(each.name, each.value, each.line) for each in file.directives] == [
        ("syntax", "docker/dockerfile:1", 2),
        ("escape", "`", 3),
        ("check", "skip=all", 4),
    ]
    assert file.instructions[0].text == "x  y\\"
    for late in ("# a comment\n# escape=`\nRUN x", "\n# escape=`\nRUN x", "# other=1\n# escape=`\nRUN x"):
        assert parse(late).escape == "\\"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["a", "b c"]', ["a", "b c"]),
        ("[]", []),
        ("['a']", None),
        ('["a"', None),
        ('["a"] b', None),
        ("[NaN]", None),
        ("a b", None),
        ("[" * 50000, None),
    ],
)
def test_the_json_form_is_strict_json_or_it_is_the_shell_form(text: str, words: list[str] | None) -> None:
    found = only(f"CMD {text}")
    assert found.json == (words is not None)
    assert [word.text for word in found.words] == ([text] if words is None else words)


def test_every_word_has_its_place() -> None:
    text = "  COPY --from=base --chown='a b' \\\n# no\n one \\\n  two /dest/\n"
    text += 'ENV A=1 \\\n  B=\'x y\'\nCMD ["a", \\\n "b"]\n'
    copy, env, cmd = parse(text).instructions
    assert [(each.text, each.line, each.column) for each in copy.flags] == [
        ("--from=base", 1, 8),
        ("--chown=a b", 1, 20),
    ]
    assert [(each.text, each.line, each.column) for each in copy.words] == [
        ("one", 3, 2),
        ("two", 4, 3),
        ("/dest/", 4, 7),
    ]
    assert [(each.key.text, each.value.text, each.value.line, each.value.column) for each in env.pairs] == [
        ("A", "1", 5, 7),
        ("B", "'x y'", 6, 5),
    ]
    assert [(each.text, each.line, each.column) for each in cmd.words] == [("a", 7, 6), ("b", 8, 2)]


def test_flags_end_at_two_dashes() -> None:
    found = only("RUN --mount=type=tmpfs,target=/x -- --no-flag")
    assert [each.text for each in found.flags] == ["--mount=type=tmpfs,target=/x"]
    assert found.text == "--no-flag"


def test_pairs_new_and_old() -> None:
    assert [(p.key.text, p.value.text, p.old) for p in only('ENV A=1 B="x y" C=a\\ b').pairs] == [
        ("A", "1", False),
        ("B", '"x y"', False),
        ("C", "a\\ b", False),
    ]
    assert [(p.key.text, p.value.text, p.old) for p in only("LABEL key  some = value").pairs] == [
        ("key", "some = value", True)
    ]


def test_heredocs_have_names_contents_and_modes() -> None:
    text = "RUN cat <<A <<-'B' 3<<\"C D\" ;x\n$x\nA\n\ttab\n\tB\nlast\r\nC D\nCOPY <<E <<F /e\nE\nf\nF\nRUN y"
    run, copy, last = parse(text).instructions
    assert [(h.name, h.content, h.text, h.expand, h.strip_tabs, h.descriptor, h.line) for h in run.heredocs] == [
        ("A", "$x\n", "$x\n", True, False, 0, 2),
        ("B", "\ttab\n", "tab\n", False, True, 0, 4),
        ("C D", "last\r\n", "last\r\n", False, False, 3, 6),
    ]
    assert [(h.name, h.content) for h in copy.heredocs] == [("E", ""), ("F", "f\n")]
    assert (run.end_line, copy.line, copy.end_line, last.line) == (7, 8, 11, 12)


def test_the_name_of_a_heredoc_may_stand_after_spaces() -> None:
    for line, name in (("<< EOF", "EOF"), ("<<- EOF", "EOF"), ("<<  'E F'  >out", "E F"), ("<< -E", "-E")):
        assert only(f"RUN {line}\nx\n{name}\n").heredocs[0].name == name


def test_what_looks_like_a_heredoc_and_is_none() -> None:
    assert only("ENV A=<<EOF").heredocs == ()
    assert only("RUN cat <<<here").heredocs == ()
    assert only("RUN echo '<<EOF' $((1<<2))").heredocs == ()
    assert only('RUN ["cat", "<<EOF"]').heredocs == ()


def test_on_build_has_its_instruction_within() -> None:
    found = only("ONBUILD run --network=none cat <<E\nx\nE\n")
    assert found.trigger
    assert (found.trigger.name, found.trigger.text, found.trigger.flags[0].text) == ("RUN", "cat <<E", "--network=none")
    assert found.trigger.heredocs[0].content == "x\n"


def test_comments_directly_above() -> None:
    found = parse("# lost\n\n# base is it\n# more\nFROM a AS base\n# x\n#\nRUN x").instructions
    assert [[word.text for word in each.comments] for each in found] == [["base is it", "more"], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Dockerfile: file with no instructions; a Dockerfile begins with FROM"),
        ("# only\n\n", "Dockerfile: file with no instructions"),
        ("FROM a\nRUN <<EOF\necho\n", "Dockerfile:2:1: unterminated heredoc EOF >>> RUN <<EOF; a line that is EOF"),
        ("# escape=x\nFROM a", "Dockerfile:1:10: invalid escape token 'x' does not match ` or \\ >>> # escape=x; use"),
        ("# escape=`\n# escape=`\n", "Dockerfile:2:1: only one escape parser directive can be used"),
        ("ENV A", "Dockerfile:1:5: ENV must have two arguments >>> ENV A; ENV KEY=VALUE"),
        ("ENV A=1 b", 'Dockerfile:1:9: Syntax error - can\'t find = in "b". Must be of the form: name=value'),
        ('RUN \\\n ["a", 1]', "Dockerfile:2:2: when using JSON array syntax, arrays must be comprised of strings only"),
    ],
)
def test_mistakes_name_line_column_and_way_out(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_a_line_of_ten_megabytes_and_one_that_is_too_long() -> None:
    begin = time.monotonic()
    assert len(only("RUN " + "x" * ((10 << 20) - 4)).text) == (10 << 20) - 4
    with pytest.raises(Invalid, match="a line of more than 10 MiB"):
        parse("RUN " + "x" * (10 << 20))
    with pytest.raises(Invalid, match="an instruction of more than 10 MiB"):
        parse(("RUN " + "x" * (1 << 20) + "\\\n") + ("x" * (1 << 20) + "\\\n") * 10)
    assert time.monotonic() - begin < 30


def test_too_many_instructions() -> None:
    with pytest.raises(Invalid, match=r"Dockerfile:10001:1: more than 10000 instructions"):
        parse("RUN x\n" * 20_000)


def test_a_long_source_line_is_cut_around_the_mistake() -> None:
    with pytest.raises(Invalid) as caught:
        parse("ENV " + "A=1 " * 1000 + "b" + " A=1" * 1000)
    assert len(str(caught.value)) < 400
    assert "A=1 b A=1" in str(caught.value)


@example("0\\\n0")
@given(st.text(max_size=200) | st.text("FROMRUN \n\t\\<'\"[]=-`#\r", max_size=60))
def test_any_text_gives_instructions_or_one_error(text: str) -> None:
    try:
        found, message = parse(text).instructions, ""
    except LimpetError as e:
        found, message = (), e.message
    assert "\n" not in message
    assert bool(found) != bool(message)
    lines = text.removeprefix("\ufeff").split("\n")
    for each in found:
        rest = lines[each.keyword.line - 1][each.keyword.column - 1 :]
        broken = rest.rstrip().rstrip("\\`")  # even a keyword may go on in the next line
        assert rest.startswith(each.keyword.text) or (broken and each.keyword.text.startswith(broken))
