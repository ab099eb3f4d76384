"""What transformers cannot express is refused by the name of the setting, in every family."""

import pytest
import torch
from tiny_models import families

import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import from_preset, preset_names, save, why_not_hf
from tunesmith.models.model import Model
from tunesmith.nn.feedforward.bilinear import BilinearConfig
from tunesmith.nn.norm.rms_norm import RMSNormConfig
from tunesmith.nn.position.shaw import ShawConfig

CHANGES = {
    "position": ShawConfig(max_distance=4),
    "feedforward": BilinearConfig(),
    "norm": RMSNormConfig(eps=0.5),
    "head_norm": True,
    "embedding_scale": 3.0,
    "attention_scale": 0.77,
    "final_dropout": 0.03,
    "num_segments": 5,
}
HELD = {  # what a family can say after all
    "norm": ("llama", "mistral", "qwen2", "qwen3"),
    "head_norm": ("qwen3",),
    "num_segments": ("bert", "roberta", "electra", "albert", "deberta_v2"),
}


@pytest.mark.parametrize("family", families())
def test_what_was_loaded_can_be_written(family, checkpoints):
    assert why_not_hf(ts.load(checkpoints[family])) is None


@pytest.mark.parametrize("preset", preset_names())
def test_presets_can_be_written(preset):
    if preset.endswith("_mini"):
        assert why_not_hf(from_preset(preset)) is None


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("family", [family for family in families() if family != "custom"])
def test_one_setting_too_many(family, field, checkpoints, tmp_path):
    config = ts.load(checkpoints[family]).config
    stack = "decoder" if config.encoder is None else "encoder"
    changed = getattr(config, stack).model_copy(update={field: CHANGES[field]})
    with torch.device("meta"):
        model = Model(config.model_copy(update={stack: changed, "head": None}))
    if family in HELD.get(field, ()):
        assert why_not_hf(model) is None
        return
    reason = why_not_hf(model)
    assert reason is not None
    assert f"has {field} = " in reason
    assert "\n" not in reason
    with pytest.raises(CheckpointError, match=f"cannot be written in the Hugging Face layout: .*{field}"):
        save(model, tmp_path / "out")


def test_segments_of_a_model_without_any(checkpoints):
    ids = torch.tensor([[5, 6, 7, 8]])
    for family in ("gpt2", "roberta", "t5"):
        model = ts.load(checkpoints[family])
        plain = model(ids, token_type_ids=torch.zeros_like(ids)).hidden
        assert torch.equal(plain, model(ids).hidden)
        if family != "roberta":  # it has a table of one
            with pytest.raises(ValueError, match=r"^token_type_ids: this model has no segments"):
                model(ids, token_type_ids=torch.tensor([[0, 0, 1, 1]]))
    xlnet = ts.load(checkpoints["xlnet"])
    assert not torch.equal(xlnet(ids, token_type_ids=torch.tensor([[0, 0, 1, 1]])).hidden, xlnet(ids).hidden)
