"""Order of examples, batches by tokens, and packing, which changes no number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith as ts
from tunesmith.base.layout import make_layout
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.text.batching import Examples, Order, cut_by_tokens, pack
from tunesmith.text.tokenizer import Encoded

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def examples(lengths, *, pairs=False):
    ids = [[100 * i + t for t in range(length)] for i, length in enumerate(lengths)]
    segments = [[int(pairs and t > length // 2) for t in range(length)] for length in lengths]
    return Examples(Encoded(ids, segments, [], [False] * len(lengths)))


@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**62))
def test_each_epoch_is_a_permutation(size, batch_size, seed):
    order = Order(size, batch_size=batch_size, seed=seed)
    seen = [i for step in range(-(-3 * size // batch_size)) for i in order.step(step)]
    for epoch in range(3):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert all(len(order.step(step)) == batch_size for step in range(3))


@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 100))
def test_seeking_is_walking(size, batch_size, step):
    walked = Order(size, batch_size=batch_size, seed=1)
    for i in range(step):
        walked.step(i)
    assert Order(size, batch_size=batch_size, seed=1).step(step) == walked.step(step) == walked.step(step)


def test_epochs_and_seeds_differ():
    orders = [Order(100, batch_size=100, seed=seed).step(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(LENGTHS, st.integers(1, 120), st.data())
def test_cut_by_tokens(lengths, most, data):
    lengths = np.array(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True, min_size=1))
    batches = cut_by_tokens(chosen, lengths, max_tokens=most)
    assert sorted(i for batch in batches for i in batch) == sorted(chosen)
    flat = [(lengths[i], i) for batch in batches for i in batch]
    assert flat == sorted(flat)
    for batch, after in zip(batches, [*batches[1:], None], strict=True):
        tokens = lengths[batch].sum()
        assert tokens <= most or len(batch) == 1
        assert after is None or tokens + lengths[after[0]] > most
    assert cut_by_tokens(chosen[::-1], lengths, max_tokens=most) == batches


@settings(deadline=None)
@given(LENGTHS, st.data())
def test_pack(lengths, data):
    found = examples(lengths, pairs=True)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True, min_size=1))
    packed = pack(found, chosen)
    assert sorted(packed.indices) == sorted(chosen)
    assert list(packed.layout.lengths) == sorted(lengths[i] for i in chosen)
    total = packed.layout.num_tokens
    assert len(packed.token_ids) == len(packed.layout.positions) == len(packed.layout.segments) >= total
    for i, start in zip(packed.indices, packed.layout.starts.tolist(), strict=True):
        rows = slice(start, start + lengths[i])
        assert packed.token_ids[rows].tolist() == [100 * i + t for t in range(lengths[i])]
        assert packed.layout.positions[rows].tolist() == list(range(lengths[i]))
        assert packed.layout.segments[rows].tolist() == [int(t > lengths[i] // 2) for t in range(lengths[i])]
    assert (packed.token_ids[total:] == 0).all()
    assert packed.with_noise(torch.Generator()).layout.noise is not None
    assert packed.layout.noise is None


@pytest.mark.parametrize(
    "head", [ClassifyConfig(num_labels=3, pooling="mean"), ClassifyConfig(num_labels=3), TagConfig(num_labels=3)]
)
def test_spare_rows_change_no_logit_and_no_gradient(head, checkpoints):
    model = ts.load(checkpoints["bert"]).with_head(head).eval()
    stream = torch.Generator().manual_seed(0)
    lengths = [2, 3, 3, 9, 21]
    ids = torch.randint(5, 60, (sum(lengths),), generator=stream)
    found = []
    for spare in (0, 10):
        layout = make_layout(lengths, spare=spare)
        logits = model.logits(torch.cat([ids, ids.new_zeros(spare)]), layout)
        assert len(logits) == (sum(lengths) if head.choice_name() == "tag" else len(lengths))
        model.zero_grad()
        logits.square().sum().backward()
        found.append((logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (plain, want), (spared, got) = found
    torch.testing.assert_close(spared, plain, rtol=0, atol=1e-6)
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=1e-5 * max(1, gradient.abs().max().item()))


def test_what_a_text_is_packed_with_does_not_matter(checkpoints):
    """The same text alone, among others, and padded as transformers pads."""
    model = ts.load(checkpoints["roberta"]).with_head(ClassifyConfig(num_labels=3)).eval()
    stream = torch.Generator().manual_seed(0)
    texts = [torch.randint(5, 60, (length,), generator=stream) for length in (1, 4, 4, 17, 33, 60)]
    together = model.logits(torch.cat(texts), make_layout([len(text) for text in texts]))
    for i, text in enumerate(texts):
        alone = model.logits(text, make_layout([len(text)]))
        padded = model(
            torch.cat([text, text.new_ones(5)])[None], attention_mask=(torch.arange(len(text) + 5) < len(text))[None]
        )
        for found in (together[i : i + 1], padded.logits):
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)
