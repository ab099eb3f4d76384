"""The loop: ends, stop conditions, the order in which tokens are heard."""

import pytest
import torch
from toys import toy, words

from tunesmith.nn.decoding.greedy import greedy
from tunesmith.nn.decoding.loop import decode
from tunesmith.nn.decoding.session import Session

LENGTHS = [1, 3, 3, 8]
PROMPTS = list(words(*LENGTHS).split(LENGTHS))


@pytest.fixture(scope="module")
def model():
    return toy("decoder", "rope")


def run(model, **settings):
    with torch.no_grad():
        return decode(Session(model.decoder, model.head), PROMPTS, greedy, max_new_tokens=12, **settings)


def test_no_tokens_are_wanted(model):
    with torch.no_grad():
        assert decode(Session(model.decoder, model.head), PROMPTS, greedy, max_new_tokens=0) == [[]] * 4


def test_ends_are_kept_and_nothing_comes_behind_them(model):
    plain = run(model)
    assert [len(made) for made in plain] == [12] * 4
    end = plain[1][2]
    for before, made in zip(plain, run(model, ends=(end,)), strict=True):
        wanted = before[: before.index(end) + 1] if end in before else before
        assert made == wanted


def test_a_stop_condition_sees_each_sequence_by_its_number(model):
    seen = []

    def stop(i, tokens):
        seen.append((i, list(tokens)))
        return len(tokens) >= i + 2

    made, plain = run(model, stop=stop), run(model)
    assert made == [tokens[: i + 2] for i, tokens in enumerate(plain)]
    for i in range(4):
        assert [tokens for number, tokens in seen if number == i] == [made[i][:n] for n in range(1, i + 3)]


def test_tokens_are_heard_step_by_step_and_once(model):
    heard = []
    made = run(model, hear=lambda i, token: heard.append((i, token)), stop=lambda i, tokens: len(tokens) > 2 * i)
    order = [(step, i) for step in range(12) for i in range(4) if step < len(made[i])]
    assert heard == [(i, made[i][step]) for step, i in order]


def test_adjust_gets_the_whole_history(model):
    made, plain = [], run(model)

    def adjust(logits, histories, counts):
        made.append((histories, counts))
        return logits

    assert run(model, adjust=adjust) == plain
    for step, (histories, counts) in enumerate(made):
        assert counts == [step] * 4
        assert histories == [p.tolist() + tokens[:step] for p, tokens in zip(PROMPTS, plain, strict=True)]
