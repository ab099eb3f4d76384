"""Sentences: nothing is lost, ends are found in several scripts, the usual traps are passed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.sentences import MAX_SENTENCE_CHARACTERS, split_sentences

LETTERS = st.sampled_from(list("aAZzéß漢한 .!?…。！？\"'”)(\n\r\t\u2028-1290،؟।"))


@given(st.one_of(st.text(LETTERS, max_size=60), st.text(max_size=60)))
def test_nothing_is_lost(text):
    found = split_sentences(text)
    assert "".join(found) == text
    assert all(found)
    assert len(found) <= 1 or all(piece.strip() for piece in found[1:])


@given(st.lists(st.text("abAB 漢.", min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=6))
def test_no_sentence_crosses_a_line_break(lines):
    for piece in split_sentences("\n".join(lines)):
        assert "\n" not in piece.rstrip("\n").lstrip()


@pytest.mark.parametrize(
    "marked",
    [
        "One ends here.| Two begins.| Three?| Four!| Five…| Six.",
        "He said “Go.”| Then he left.| (It was late.)| «Да.»| Нет.",
        "A line\n|another line\r\n|and the last",
        "Das ist gut.| Österreich gewann am 3. Oktober 1990.| Dann kam Dr. Huber mit Nr. 5 an.",
        "J. R. Smith of the U.S. Army met e.g. Mr. T. S. Eliot.| They agreed.",
        "Pi is 3.14 and v1.2.3 runs at www.example.com.| Yes.",
        "the end. of small letters is none",
        "这是第一句。|这是第二句！|“第三句。”|完",
        "これは文です。|次の文です？|はい。",
        "오늘은 비가 온다.| 내일은 맑다.| 정말?| 그렇다.",
        "هل هذا سؤال؟| نعم هذا جواب.| انتهى",
        "यह एक वाक्य है।| यह दूसरा है।| अंत",
        "It was 1990.| Then it was 1991.| 200 people came.",
        "Really?!| Yes...| No... maybe.",
        "1. First point\n|2. Second point",
    ],
)
def test_sentences_of_many_scripts(marked):
    found = split_sentences(marked.replace("|", ""))
    assert found == marked.split("|")


def test_a_piece_without_end_is_cut():
    text = "word " * 60_000
    found = split_sentences(text)
    assert "".join(found) == text
    assert len(found) == 3 + 1
    assert all(len(piece) <= MAX_SENTENCE_CHARACTERS for piece in found)
    assert all(piece.startswith(" word") for piece in found[1:-1])
    assert [len(piece) for piece in split_sentences("a" * 250_000)] == [100_000, 100_000, 50_000]


@pytest.mark.parametrize("unit", [".", ". ", '."', "。", "?!(", " \n", ". (", "…)"])
def test_no_text_takes_quadratic_time(unit):
    split_sentences(unit * (200_000 // len(unit)))  # it would take minutes
