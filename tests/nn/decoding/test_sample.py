"""Sampling: the distribution is right, the cuts are as defined, and a sequence draws the same in any company."""

import numpy as np
import pytest
import torch
from toys import toy, words

from tunesmith.nn.decoding.loop import decode
from tunesmith.nn.decoding.sample import SHORT_LIST, Sampler
from tunesmith.nn.decoding.session import Session

DRAWS = 20_000
LOGITS = torch.tensor([1.0, -0.5, 2.0, 0.3, -3.0, 1.4])
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}  # passed by chance once in a thousand seeds


def counts_of(**settings):
    sampler = Sampler(range(DRAWS), **settings)
    drawn = sampler(LOGITS.expand(DRAWS, -1), list(range(DRAWS)))
    return np.bincount(drawn.numpy(), minlength=len(LOGITS))


def check(counts, wanted):
    """Chi-square of the counts against the probabilities."""
    wanted = wanted.double().numpy()
    assert (counts[wanted == 0] == 0).all()
    kept = wanted > 0
    expected = DRAWS * wanted[kept]
    if kept.sum() > 1:
        assert ((counts[kept] - expected) ** 2 / expected).sum() < CHI_SQUARE[int(kept.sum()) - 1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_distribution(temperature):
    check(counts_of(temperature=temperature), torch.softmax(LOGITS / temperature, -1))


def test_a_stream_draws_from_the_distribution_too():
    """Many draws of one sequence, as in a long text."""
    sampler = Sampler([7])
    drawn = np.array([int(sampler(LOGITS[None], [0])) for _ in range(DRAWS)])
    check(np.bincount(drawn, minlength=len(LOGITS)), torch.softmax(LOGITS, -1))


@pytest.mark.parametrize("top_k", [1, 2, 5, 6, 60])
def test_top_k(top_k):
    kept = LOGITS >= LOGITS.sort(descending=True).values[min(top_k, 6) - 1]
    check(counts_of(top_k=top_k), torch.where(kept, LOGITS, -torch.inf).softmax(-1))


def nucleus(chances, top_p):
    """The fewest of the likeliest tokens that have top_p together."""
    kept, total = torch.zeros_like(chances), 0.0
    for token in chances.argsort(descending=True).tolist():
        if total < top_p:
            kept[token] = chances[token]
        total += chances[token].item()
    return kept / kept.sum()


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.6, 0.9, 0.999])
def test_top_p(top_p):
    check(counts_of(top_p=top_p), nucleus(torch.softmax(LOGITS.double(), -1), top_p))


def test_top_p_behind_top_k_and_temperature():
    best = LOGITS.topk(3).indices
    cut = torch.full_like(LOGITS, -torch.inf).double().index_copy(0, best, LOGITS[best].double() / 2)
    check(counts_of(top_k=3, top_p=0.7, temperature=2.0), nucleus(cut.softmax(-1), 0.7))


@pytest.mark.parametrize("spread", [0.01, 8.0])
def test_a_large_vocabulary_is_cut_as_a_small_one(spread):
    """Where the short list is enough, and where it is not."""
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4 * SHORT_LIST, generator=stream, dtype=torch.float64) * spread
    chances = logits.softmax(-1)
    kept = torch.stack([nucleus(row, 0.8) for row in chances]) > 0
    assert bool((kept.sum(-1) > SHORT_LIST).all()) == (spread < 1)
    for seed in range(300):
        drawn = Sampler([seed] * 3, top_p=0.8)(logits, [0, 1, 2])
        assert kept.gather(-1, drawn[:, None]).all()


def samples(model, prompts, seeds, **settings):
    with torch.no_grad():
        return decode(
            Session(model.decoder, model.head), prompts, Sampler(seeds, **settings), max_new_tokens=15, ends=(0,)
        )


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8, "temperature": 1.5}])
def test_a_sequence_is_the_same_alone_and_in_a_batch(settings):
    model = toy("decoder", "rope")
    lengths = sorted([1, 3, 3, 8, 2, 9, 4, 17] * 4)
    prompts = list(words(*lengths).split(lengths))
    seeds = [100 + i for i in range(len(prompts))]
    whole = samples(model, prompts, seeds, **settings)
    assert len({len(made) for made in whole}) > 3, "they must end at different lengths"
    for i, prompt in enumerate(prompts):
        assert samples(model, [prompt], [seeds[i]], **settings) == [whole[i]]


def test_seeds():
    model = toy("decoder", "rope")
    prompts = [words(4)] * 6
    made = samples(model, prompts, [1, 2, 3, 1, 2, 4])
    assert made[0] == made[3]
    assert made[1] == made[4]
    assert len({tuple(one) for one in made}) == 4
    assert made == samples(model, prompts, [1, 2, 3, 1, 2, 4])
