"""Prefix language modelling: nothing is lost, any cut is as likely; the losses of transformers' T5, GPT-2, LLaMA."""

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
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


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


ALONE = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_positions": 64, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaForCausalLM", {**SIZES, "max_position_embeddings": 64}),
}


@pytest.mark.parametrize("family", ALONE)
def test_a_decoder_alone_sees_the_beginning_both_ways(family, tmp_path):
    name, fields = ALONE[family]
    kind = getattr(transformers, name)
    theirs = perturbed(kind, kind.config_class(vocab_size=500, bos_token_id=2, eos_token_id=1, **fields))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert PrefixLMConfig().head(model) == model.config.head
    made = objective(model)
    batch = made.prepare(drawn(single(30), single(1), row(5, 12), single(25, frame="bart")))
    loss = made.loss(model, batch, phase="train")["lm"]
    expected, causal, count = torch.zeros(()), torch.zeros(()), 0
    for ids, target in zip(parts(batch.source), labels(batch, batch.source), strict=True):
        assert list(ids[-len(target) :]) == list(target)
        length, prefix = len(ids), len(ids) - len(target)
        place = torch.arange(length)
        sees = (place <= place[:, None]) | (place < prefix)
        for seen in (sees, sees.tril()):
            mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min)
            logits = theirs(input_ids=torch.tensor(ids)[None], attention_mask=mask[None, None]).logits[
                0, prefix - 1 : -1
            ]
            found = torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
            expected, causal = (expected + found, causal) if seen is sees else (expected, causal + found)
        count += len(target)
    assert made.targets(batch) == {"lm": count}
    assert abs(expected - causal) > 0.01
    assert_equal(loss, expected.detach())
    loss.backward()
    expected.backward()
    table = theirs.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.trunk.embeddings.tokens.weight.grad, table, rtol=0, atol=1e-4 * table.abs().max())


def test_errors_of_the_user():
    with pytest.raises(CheckpointError, match="which objective prefix_lm needs"):
        PrefixLMConfig().build(toy("encoder_decoder", "none"), vocabulary(500, end=None), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="prefix_lm trains an encoder-decoder, but custom is an encoder"):
        PrefixLMConfig().head(toy("encoder", "none"))
