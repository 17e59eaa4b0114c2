"""Quotes, escapes and variables of words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.language.words import MAX_DEPTH, WordError, expand, split, split_raw

VALUES = {"A": "one", "EMPTY": "", "PATH": "/usr/bin:/bin", "FILE": "a.tar.gz", "SPACED": " x  y "}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("plain", "plain"),
        ("$A ${A}s", "one ones"),
        ("$Amber", ""),
        ("$A-b", "one-b"),
        ("'$A' \"$A\"", "$A one"),
        (r"\$A \\ \n", r"$A \ n"),
        (r'"\$A \" \\ \n"', r"$A " + '" \\ \\n'),
        (r"'\'", "\\"),
        ("$", "$"),
        ("a$ $.", "a$ $."),
        ("$1 $@ $$x", "  x"),
        ("${NONE:-d} ${EMPTY:-d} ${EMPTY-d} ${A:-d}", "d d  one"),
        ("${NONE:+s}|${EMPTY:+s}|${EMPTY+s}|${A:+s}", "||s|s"),
        ("${NONE:-${OTHER:-deep $A}}", "deep one"),
        ("${NONE:-'}'}", "}"),
        (r"${NONE:-\}}", "}"),
        ("${A:?no} ${EMPTY?no}", "one "),
        ("${FILE#*.} ${FILE##*.} ${FILE%.*} ${FILE%%.*}", "tar.gz gz a.tar a"),
        ("${FILE#x} ${FILE%?z}", "a.tar.gz a.tar."),
        ("${PATH/bin/lib} ${PATH//bin/lib} ${PATH//bin/}", "/usr/lib:/bin /usr/lib:/lib /usr/:/"),
        (r"${PATH//\//\\}", "\\\\usr\\\\bin:\\\\bin"),
        ("${A//?/xy}", "xyxyxy"),
        ("한$A", "한one"),
    ],
)
def test_expansion(word: str, result: str) -> None:
    assert expand(word, VALUES).text == result


@pytest.mark.parametrize(
    ("word", "message", "at"),
    [
        ("a'b", "unexpected end of statement while looking for matching single-quote", 1),
        ('"b', "unexpected end of statement while looking for matching double-quote", 0),
        ("x ${A", "syntax error: missing '}'", 2),
        ("x${", "syntax error: missing '}'", 1),
        ("${A:-b", "syntax error: missing '}'", 0),
        ("${}", "syntax error: bad substitution", 0),
        ("${A:=b}", "unsupported modifier (:=) in substitution", 0),
        ("${A:#b}", "unsupported modifier (:#) in substitution", 0),
        ("${A~b}", "unsupported modifier (~) in substitution", 0),
        ("${A/b}", "syntax error: missing '/' in ${}", 0),
        ("${NONE:?set it}", "NONE: set it", 0),
        ("${NONE?}", "NONE: is not allowed to be unset", 0),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty", 0),
        (r"${A#\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'", 0),
    ],
)
def test_mistakes_say_what_and_where(word: str, message: str, at: int) -> None:
    with pytest.raises(WordError) as caught:
        expand(word, VALUES)
    assert (caught.value.message, caught.value.at) == (message, at)


def test_another_escape_character() -> None:
    assert expand("`$A \\$A", VALUES, "`").text == "$A \\one"


def test_which_variables_were_used_and_which_are_unset() -> None:
    found = expand("$A ${NONE:-$OTHER} ${EMPTY:+$A}", VALUES)
    assert found.used == {"A", "EMPTY"}
    assert found.unset == {"NONE", "OTHER"}


def test_heredocs_keep_their_quotes() -> None:
    assert expand('it\'s "$A"', VALUES, quotes=False).text == 'it\'s "one"'


def test_words_are_split_after_the_values_came_in() -> None:
    assert split("a$SPACED b\"$SPACED\" '' c\\ d", VALUES) == ["a", "x", "y", "b x  y ", "c d"]
    assert split("a${SPACED}b", VALUES) == ["a", "x", "y", "b"]


def test_raw_words_stay_as_written() -> None:
    assert split_raw("""cat <<-'E F' << G "$A" \\x""") == ["cat", "<<-'E F'", "<< G", '"$A"', "\\x"]


def test_hostile_words_cost_little() -> None:
    begin = time.monotonic()
    with pytest.raises(WordError, match="nested more than"):
        expand("${A:+" * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1), VALUES)
    assert expand("${X##" + "*a" * 20 + "b}", {"X": "a" * 2000}).text == "a" * 2000
    with pytest.raises(WordError, match="bring more than"):
        expand("$X" * 100, {"X": "x" * (1 << 20)})
    with pytest.raises(WordError, match="too long"):
        expand("${X//?/y}", {"X": "x" * (1 << 20)})
    assert time.monotonic() - begin < 10


@given(st.text("AB_1${}\\ x'\"/:-+?#%<*", max_size=30))
def test_any_word_gives_a_text_or_one_error(word: str) -> None:
    try:
        text, at = expand(word, VALUES).text, 0
    except WordError as e:
        text, at = "", e.at
    assert 0 <= at <= len(word)
    if not set(word) & set("$\\'\""):
        assert text == word
