"""Prefix language modelling: nothing is lost, every cut is as likely, and the loss of transformers' T5."""

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from made_samples import END, FIRST, drawn, labels, likely, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives._documents import documents
from tunesmith.objectives.prefix_lm import PrefixLMConfig

T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}


def objective(model=None):
    model = toy("encoder_decoder", "none") if model is None else model
    return PrefixLMConfig().build(model, vocabulary(500), max_tokens=64, seed=0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.booleans(), st.integers(0, 99))
def test_nothing_is_lost(lengths, together, seed):
    made = row(*lengths) if together else single(*lengths)
    batch = objective().prepare(drawn(made, seed=seed))
    found = set()
    for source, target, read in zip(parts(batch.source), labels(batch, batch.target), parts(batch.target), strict=True):
        assert source[-1] == target[-1] == END
        np.testing.assert_array_equal(read, [0, *target[:-1]])
        assert len(target) > 1
        found.add((*source[:-1], *target))
    assert found == {tuple(one.sample.ids) for one in documents(drawn(made))}


def test_every_cut_is_as_likely():
    batch = objective().prepare(drawn(*[single(8)] * 2000))
    seen = Counter(len(source) - 1 for source in parts(batch.source))
    assert sorted(seen) == list(range(1, 8))
    assert likely(list(seen.values()))


def test_loss_of_transformers(tmp_path):
    theirs = perturbed(transformers.T5ForConditionalGeneration, transformers.T5Config(vocab_size=500, **T5))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert PrefixLMConfig().head(model) == model.config.head
    made = objective(model)
    batch = made.prepare(drawn(single(30), single(1), row(5, 12)))
    expected, count = 0, 0
    for source, target in zip(parts(batch.source), labels(batch, batch.target), strict=True):
        asked = theirs(input_ids=torch.tensor(source)[None], labels=torch.tensor(target)[None])
        expected, count = expected + asked.loss.detach() * len(target), count + len(target)
    assert_equal(made.loss(model, batch, phase="train")["lm"].detach(), expected)
    assert made.targets(batch) == {"lm": count}
    assert FIRST in batch.labels


def test_errors_of_the_user():
    with pytest.raises(CheckpointError, match="which objective prefix_lm needs"):
        PrefixLMConfig().build(toy("encoder_decoder", "none"), vocabulary(500, end=None), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="prefix_lm trains an encoder-decoder"):
        PrefixLMConfig().head(toy("encoder", "none"))
