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


def test_an_export_takes_batches_in_transformers(llama, checkpoints, tiny_data, tmp_path):
    """Its config.json names no padding, and transformers refuses batches without: the tokenizer knows."""
    assert ts.load(str(llama)).config.foreign.get("pad_token_id") is None
    data = tiny_data["classification"]
    run = ts.tune(str(llama), str(data.file), method="lora", out=str(tmp_path / "run"), settings=settings(checkpoints))
    ts.export(tmp_path / "run", tmp_path / "merged", form="merged")
    assert "text-classification" in (tmp_path / "merged" / "README.md").read_text()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    pad = theirs.config.pad_token_id
    assert pad == run.model.tokenizer.token_id("<pad>")
    encoded = run.model.tokenizer.encode(data.texts, max_tokens=None).ids
    width = max(map(len, encoded))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in encoded])
    mask = (torch.arange(width) < torch.tensor([[len(row)] for row in encoded])).long()
    with torch.no_grad():
        want = theirs(ids, attention_mask=mask).logits.softmax(-1)
    got = [list(row["probabilities"].values()) for row in run.predict(data.texts)]
    torch.testing.assert_close(torch.tensor(got), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bart", "xlnet", "gpt2"])
def test_a_probe_of_the_last_token(family, checkpoints, tiny_data, tmp_path):
    data = tiny_data["classification"]
    run = ts.tune(checkpoints[family], data.file, method="linear_probe", pooling="last", out=tmp_path / "run")
    assert run.model.config.head.pooling == "last"
    again = ts.load_run(tmp_path / "run")
    assert again.predict(data.texts) == run.predict(data.texts)
    assert ts.evaluate(tmp_path / "run", data.file)[1]["accuracy"] >= 0.5


def test_a_probe_on_a_head_without_bias_is_refused(llama, checkpoints, tiny_data, tmp_path):
    data, out = str(tiny_data["classification"].file), str(tmp_path / "run")
    with pytest.raises(SettingError, match=r"method\.pooling: the family's own head has no bias"):
        ts.tune(str(llama), data, method="linear_probe", pooling="head", out=out, settings=settings(checkpoints))
