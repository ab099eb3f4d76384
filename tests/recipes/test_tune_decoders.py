"""Decoders go through the same verbs as encoders: no segments, a head without bias that reads the last token."""

import pytest
import torch
import transformers

import tunesmith as ts
from tunesmith.base.errors import SettingError

CASES = [("full", "classification"), ("lora", "pair"), ("linear_probe", "classification"), ("bitfit", "tagging")]


@pytest.fixture(scope="module")
def llama(tmp_path_factory, checkpoints):
    folder = tmp_path_factory.mktemp("llama")
    config = transformers.LlamaConfig(
        vocab_size=ts.load(str(checkpoints["roberta"])).config.trunk.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=66,
        attention_bias=True,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def settings(checkpoints):
    return {"train.max_steps": 2, "train.batch_size": 4, "tokenizer": str(checkpoints["roberta"])}


@pytest.mark.parametrize(("method", "task"), CASES)
def test_tuned_and_loaded_again(method, task, llama, checkpoints, tiny_data, tmp_path):
    data = tiny_data[task]
    out = tmp_path / "run"
    run = ts.tune(str(llama), str(data.file), method=method, out=str(out), settings=settings(checkpoints))
    assert len(run.predict(data.texts[:2])) == 2
    assert ts.load(str(out)).decoder is not None


def test_a_probe_on_a_head_without_bias_is_refused(llama, checkpoints, tiny_data, tmp_path):
    data, out = str(tiny_data["classification"].file), str(tmp_path / "run")
    with pytest.raises(SettingError, match=r"method\.pooling: the family's own head has no bias"):
        ts.tune(str(llama), data, method="linear_probe", pooling="head", out=out, settings=settings(checkpoints))
