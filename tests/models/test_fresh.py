"""Fresh models from presets, with other sizes and parts."""

import pytest
from made_samples import vocabulary

from tunesmith.base.errors import SettingError
from tunesmith.models._fresh import fresh_model, usual_head
from tunesmith.nn.feedforward.relu import ReLUConfig
from tunesmith.nn.position.rope import RoPEConfig

KNOWN = vocabulary(400)


def test_sizes_follow_what_changes():
    model, fault = fresh_model("bert_mini", changes={"d_model": 96, "num_heads": 3}, vocabulary=KNOWN, seed=0)
    encoder = model.config.encoder
    assert fault is None
    assert (encoder.d_model, encoder.d_embedding, encoder.head_width, encoder.vocab_size) == (96, 96, 32, 400)
    assert model.config.foreign["pad_token_id"] == KNOWN.pad


def test_dropout_means_all_of_it():
    model, _ = fresh_model("t5_mini", changes={"dropout": 0.0}, vocabulary=KNOWN, seed=0)
    for stack in model.stacks:
        assert stack.config.dropout == stack.config.attention_dropout == stack.config.feedforward_dropout == 0
    assert model.config.foreign["decoder_start_token_id"] == KNOWN.pad


def test_fresh_t5_weights_are_spread_by_their_own_width():
    """std of a query map: (d_model d_head)^-1/2, whatever width the preset has."""
    model, _ = fresh_model("t5_mini", changes={"d_model": 64, "d_head": 16, "num_heads": 4}, vocabulary=KNOWN, seed=0)
    weight = model.encoder.blocks[0].attention.query.weight
    assert float(weight.detach().std()) == pytest.approx((64 * 16) ** -0.5, rel=0.05)
    assert float(model.encoder.embeddings.tokens.weight.detach().std()) == pytest.approx(1.0, rel=0.05)


def test_gpt2_narrows_maps_into_the_residual_stream():
    model, _ = fresh_model("gpt2_mini", changes={"num_layers": 2}, vocabulary=KNOWN, seed=0)
    block = model.decoder.blocks[0]
    assert float(block.feedforward.down.weight.detach().std()) == pytest.approx(0.02 / 2, rel=0.05)
    assert float(block.feedforward.up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_other_parts_are_kept_under_our_own_names():
    from tunesmith.nn.position.alibi import ALiBiConfig

    model, fault = fresh_model("bert_mini", changes={"position": ALiBiConfig()}, vocabulary=KNOWN, seed=0)
    assert "position" in fault
    assert model.config.family == "custom"


@pytest.mark.parametrize(
    ("preset", "name", "changes", "wanted"),
    [
        ("gpt2_mini", "lm", {"order": "post"}, {"activation": None, "bias": False, "table": "tied"}),
        ("llama_mini", "lm", {"feedforward": ReLUConfig()}, {"activation": None, "bias": False, "table": "own"}),
        ("t5_mini", "lm", {"position": RoPEConfig(), "d_model": 64}, {"activation": None, "scale": 0.125}),
        ("albert_mini", "pretrain", {"position": RoPEConfig()}, {"activation": "gelu_tanh"}),
    ],
)
def test_a_custom_model_keeps_the_head_of_its_preset(preset, name, changes, wanted):
    usual, fault = fresh_model(preset, changes={}, vocabulary=KNOWN, seed=0)
    assert fault is None
    custom, fault = fresh_model(preset, changes=changes, vocabulary=KNOWN, seed=0)
    assert fault is not None
    head = usual_head(custom, name)
    assert {key: getattr(head, key) for key in wanted} == wanted
    if "d_model" not in changes:
        assert head == usual_head(usual, name)


def test_the_part_that_is_foreign_is_named_before_sizes():
    changes = {"feedforward": ReLUConfig(), "d_model": 96, "num_heads": 4}
    _, fault = fresh_model("llama_mini", changes=changes, vocabulary=KNOWN, seed=0)
    assert fault.startswith("its decoder has feedforward = ")


def test_faults_are_named():
    with pytest.raises(SettingError, match="model.preset: there is no preset 'brt'"):
        fresh_model("brt", changes={}, vocabulary=KNOWN, seed=0)
    with pytest.raises(SettingError, match="num_heads must divide d_model"):
        fresh_model("bert_mini", changes={"d_model": 100, "num_heads": 3}, vocabulary=KNOWN, seed=0)
