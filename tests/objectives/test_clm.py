"""Causal language modelling: the losses of transformers' GPT-2 and LLaMA; documents of a row do not see each other."""

import pytest
import torch
import transformers
from made_samples import couple, drawn, labels, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives.clm import CLMConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
KINDS = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_positions": 64, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaForCausalLM", {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}),
}


def objective(model):
    return CLMConfig().build(model, vocabulary(500), max_tokens=64, seed=0)


@pytest.fixture(params=KINDS)
def both(request, tmp_path):
    """The same random model, theirs and ours."""
    name, fields = KINDS[request.param]
    kind = getattr(transformers, name)
    theirs = perturbed(kind, kind.config_class(vocab_size=500, bos_token_id=2, eos_token_id=1, **fields))
    theirs.save_pretrained(tmp_path)
    return theirs, load(tmp_path)


def test_loss_of_transformers(both):
    theirs, model = both
    assert CLMConfig().head(model) == model.config.head
    made = objective(model)
    batch = made.prepare(drawn(single(40), single(1), single(25, frame="bart"), row(17, 30), single(0)))
    loss = made.loss(model, batch, phase="train")["lm"]
    expected, count = torch.zeros(()), 0
    for ids, target in zip(parts(batch.source), labels(batch, batch.source), strict=True):
        assert list(ids[1:]) == list(target)
        if len(target):
            tensor = torch.tensor(ids)[None]
            expected, count = expected + theirs(input_ids=tensor, labels=tensor).loss * len(target), count + len(target)
    assert made.targets(batch) == {"lm": count}
    assert batch.num_samples == 5
    assert batch.num_tokens == 41 + 2 + 27 + 18 + 31 + 1
    assert_equal(loss, expected.detach())
    loss.backward()
    expected.backward()
    table = theirs.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.trunk.embeddings.tokens.weight.grad, table, rtol=0, atol=1e-4 * table.abs().max())


def test_documents_of_a_row_are_as_rows_of_their_own(both):
    _, model = both
    made = objective(model)
    lengths = (9, 21, 4)
    together = made.prepare(drawn(row(*lengths)))
    firsts = (200, 209, 230)
    apart = made.prepare(drawn(*(single(n, first=first) for n, first in zip(lengths, firsts, strict=True))))
    assert torch.equal(together.source.token_ids, apart.source.token_ids)
    one, other = (made.loss(model, batch, phase="train")["lm"] for batch in (together, apart))
    assert_equal(one, other.detach())
    whole = made.prepare(drawn(single(sum(lengths) + 2)))
    assert abs(made.loss(model, whole, phase="train")["lm"] - one) > 1e-3


def test_a_pair_is_one_document(both):
    _, model = both
    batch = objective(model).prepare(drawn(couple((5,), (6,))))
    assert batch.source.layout.lengths == (13,)
    assert len(batch.rows) == 12


def test_documents_of_one_token_have_no_target(both):
    _, model = both
    made = objective(model)
    batch = made.prepare(drawn(single(0), single(0)))
    assert made.targets(batch) == {"lm": 0}
    assert made.loss(model, batch, phase="train")["lm"] == 0


def test_other_kinds_of_models_are_refused():
    for kind in ("encoder", "encoder_decoder"):
        with pytest.raises(SettingError, match="^objective: clm trains an? decoder"):
            CLMConfig().head(toy(kind, "none"))
