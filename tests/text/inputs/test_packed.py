"""Rows of several documents: which row takes a piece, and how full rows are."""

import numpy as np
import pytest
from corpora import FIRST, FRAMES, keyed, numbered
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.inputs.packed import PackedConfig, best_fit
from tunesmith.text.tokens import Tokens


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(20, 30))
def test_best_fit_by_looking_at_all_rows(sizes, room):
    spaces: list[int] = []
    for size, row in zip(sizes, best_fit(sizes, room).tolist(), strict=True):
        fitting = [space for space in spaces if space >= size]
        if row == len(spaces):
            assert not fitting
            spaces.append(room)
        else:
            assert spaces[row] == min(fitting)
        spaces[row] -= size
        assert spaces[row] >= 0


@given(st.lists(st.lists(st.integers(0, 14), max_size=4), max_size=12), st.integers(3, 20))
def test_documents_are_whole_where_they_fit(lengths, max_tokens):
    tokens, documents = numbered(lengths)
    found = PackedConfig().samples(tokens, FRAMES["bert"], max_tokens=max_tokens, stream=keyed())
    room = max_tokens - 2
    expected = []
    for document in documents:
        flat = [token for sentence in document for token in sentence]
        expected += [flat[at : at + room] for at in range(0, len(flat), room)]
    texts = []
    for sample in (found[i] for i in range(len(found))):
        for part in np.split(sample.ids, np.cumsum(sample.lengths)[:-1]):
            assert (part[0], part[-1]) == (1, 2)
            texts.append(part[1:-1].tolist())
            assert min(texts[-1]) >= FIRST
    assert sorted(texts) == expected


@pytest.mark.parametrize("max_tokens", [128, 512, 2048])
@pytest.mark.parametrize("shape", ["log_normal", "short", "power"])
def test_rows_are_full(shape, max_tokens):
    draw = np.random.default_rng(0)
    lengths = {
        "log_normal": np.exp(draw.normal(5.3, 1.1, 4000)),  # web pages: median 200, mean 370
        "short": draw.gamma(2, 30, 20_000),  # reviews, docstrings
        "power": 30 * draw.pareto(1.2, 4000).clip(max=300) + 20,  # encyclopaedia
    }[shape].astype(int)
    tokens = Tokens([[[FIRST] * max(1, int(length))] for length in lengths])
    found = PackedConfig().samples(tokens, FRAMES["bert"], max_tokens=max_tokens, stream=keyed())
    assert found.lengths.sum() / (len(found) * max_tokens) >= 0.99
