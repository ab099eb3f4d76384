"""Scores are probabilities: they sum to one, obey the chain rule, and do not depend on what is scored beside them."""

import pytest
import torch
from toys import WORDS, toy, words

from tunesmith.models._generate import score_tokens

KINDS = ("decoder", "encoder_decoder")
LENGTHS = [3, 1, 20, 7] * 8


@pytest.fixture(scope="module")
def models():
    return {kind: toy(kind, "alibi") for kind in KINDS}


def totals(found):
    return torch.stack([torch.stack([part.sum() for part in row]) for row in found])


@pytest.mark.parametrize("kind", KINDS)
def test_all_next_tokens_together_are_certain(kind, models):
    prefixes = list(words(3, 1, 9).split([3, 1, 9]))
    found = score_tokens(models[kind], prefixes, [[torch.tensor([i]) for i in range(WORDS)]] * 3)
    torch.testing.assert_close(totals(found).exp().sum(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_of_tokens_together_are_certain(kind, models):
    pairs = [torch.tensor([i, j]) for i in range(WORDS) for j in range(WORDS)]
    found = score_tokens(models[kind], [words(4)], [pairs])
    torch.testing.assert_close(totals(found).exp().sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-10)


def test_chain_rule_over_every_split(models):
    prefix, tail = words(4), words(9, seed=1)
    ((whole,),) = score_tokens(models["decoder"], [prefix], [[tail]])
    for cut in range(1, 9):
        ((head,),) = score_tokens(models["decoder"], [prefix], [[tail[:cut]]])
        ((rest,),) = score_tokens(models["decoder"], [torch.cat([prefix, tail[:cut]])], [[tail[cut:]]])
        torch.testing.assert_close(torch.cat([head, rest]), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_of_a_continuation_scores_as_it_does_alone(kind, models):
    prefix, tail = words(4), words(9, seed=1)
    (found,) = score_tokens(models[kind], [prefix], [[tail[:cut] for cut in range(1, 10)]])
    for part in found:
        torch.testing.assert_close(part, found[-1][: len(part)], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_as_one_by_one_in_fp32(kind):
    model = toy(kind, "rope").float()
    prefixes = list(words(*LENGTHS).split(LENGTHS))
    tails = [list(words(*sizes, seed=i).split(sizes)) for i, sizes in enumerate([[5, 1, 12], [2], [1, 1], [40]] * 8)]
    whole = score_tokens(model, prefixes, tails)
    assert len(whole) == 32
    for prefix, some, row in zip(prefixes, tails, whole, strict=True):
        (alone,) = score_tokens(model, [prefix], [some])
        for one, other in zip(alone, row, strict=True):
            assert other.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_prefix_is_as_prefixes_of_their_own(kind, models):
    prefix, tails = words(6), list(words(3, 1, 8, 3, seed=2).split([3, 1, 8, 3]))
    (shared,) = score_tokens(models[kind], [prefix], [tails])
    own = score_tokens(models[kind], [prefix] * 4, [[tail] for tail in tails])
    for one, (other,) in zip(shared, own, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_whole_forward(kind, models):
    model, prefix, tail = models[kind], words(6), words(5, seed=3)
    ((found,),) = score_tokens(model, [prefix], [[tail]])
    with torch.no_grad():
        if kind == "decoder":
            logits = model(torch.cat([prefix, tail])[None]).logits[0, 5:-1]
        else:
            read = torch.cat([torch.tensor([0]), tail[:-1]])
            logits = model(prefix[None], decoder_input_ids=read[None]).logits[0]
    wanted = logits.log_softmax(-1).gather(-1, tail[:, None])[:, 0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
