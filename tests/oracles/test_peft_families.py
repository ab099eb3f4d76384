"""LoRA from and to PEFT for every family, above all where transformers keeps several of our maps as one."""

import json
import logging
import warnings

import pytest
import torch
from safetensors.torch import save_file
from test_peft_lora import THEIR_OWN, batch, shake
from tiny_models import families

import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors
from tunesmith.recipes.open import task_head
from tunesmith.recipes.saved import open_adapter, open_base
from tunesmith.tuning._peft import save_peft, why_not_peft
from tunesmith.tuning.lora import AttachedLoRA, LoRAConfig

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings(f"ignore:{THEIR_OWN}")

THEIRS = {  # what PEFT is asked to adapt
    "gpt2": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "bloom": {"target_modules": ["query_key_value", "dense", "dense_h_to_4h"]},
    "modernbert": {"target_modules": ["Wqkv", "Wi", "Wo"]},
    "llama": {"target_modules": "all-linear"},
    "t5": {"target_modules": ["q", "v", "wi_0"], "modules_to_save": ["classification_head"]},
    "bart": {"target_modules": ["q_proj", "fc1"], "modules_to_save": ["classification_head"]},
}
FUSED = ("gpt2", "bloom", "modernbert")
OURS = {
    "all": {},
    "one part": {"targets": ("attention.key",)},
    "two parts in one block": {"targets": ("*.blocks.1.attention.query", "*.blocks.1.attention.value"), "rank": 3},
    "rslora": {"scaling": "rslora", "rank": 5, "alpha": 7.0},
}


def tuned(base, **fields):
    model = open_base(str(base))
    model = model.with_head(task_head(model, "single_label").model_copy(update={"num_labels": 3}), seed=1)
    attached = LoRAConfig(**fields).attach(model, seed=0)
    shake(attached.parameters().values())
    model.eval()
    return attached


def classifier(base):
    return transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)


def loaded_by_peft(base, folder, caplog):
    """PEFT's model of an adapter; it must have no word to say about it."""
    plain = classifier(base)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", THEIR_OWN)
        theirs = peft.PeftModel.from_pretrained(plain, folder)
    assert "adapter keys" not in caplog.text
    placed, saved = peft.get_peft_model_state_dict(theirs), load_tensors(folder / "adapter_model.safetensors")
    assert placed.keys() == saved.keys()
    return theirs


def logits_of_both(ours, theirs):
    ids, mask = batch(theirs.config.vocab_size, theirs.config.pad_token_id)
    if theirs.config.is_encoder_decoder:  # their classifiers read the last </s>
        end = theirs.config.eos_token_id
        ids = ids.scatter(1, mask.sum(1, keepdim=True) - 1, end)
    with torch.no_grad():
        return ours(ids, attention_mask=mask).logits, theirs.eval()(ids, attention_mask=mask).logits


def assert_same_logits(ours, theirs):
    got, want = logits_of_both(ours, theirs)
    assert want.std() > 1e-3
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize("family", [family for family in families() if family not in ("xlnet", "custom")])
def test_ours_in_peft(family, checkpoints, tmp_path, caplog):
    attached = tuned(checkpoints[family])
    save_peft(tmp_path, attached, base=str(checkpoints[family]))
    theirs = loaded_by_peft(checkpoints[family], tmp_path, caplog)
    assert_same_logits(attached.model, theirs)
    assert_same_logits(attached.model, theirs.merge_and_unload())
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] == (family == "gpt2")


@pytest.mark.parametrize("targets", OURS)
@pytest.mark.parametrize("family", FUSED)
def test_parts_of_one_matrix(family, targets, checkpoints, tmp_path, caplog):
    attached = tuned(checkpoints[family], **OURS[targets])
    save_peft(tmp_path, attached, base=str(checkpoints[family]))
    assert_same_logits(attached.model, loaded_by_peft(checkpoints[family], tmp_path, caplog))

    again = open_adapter(tmp_path).attached
    assert isinstance(again, AttachedLoRA)
    assert sorted(again.sites) == sorted(attached.sites)
    for name, tensor in attached.state().items():
        assert torch.equal(again.state()[name], tensor), name


def test_parts_of_other_ranks_and_strengths(checkpoints, tmp_path, caplog):
    model = open_base(str(checkpoints["gpt2"]))
    model = model.with_head(task_head(model, "single_label").model_copy(update={"num_labels": 3}), seed=1)
    wide = LoRAConfig(targets=("attention.query",), rank=3, alpha=2.5).attach(model, seed=0)
    narrow = LoRAConfig(targets=("attention.value", "*.blocks.0.feedforward.up")).attach(model, seed=0)
    attached = AttachedLoRA(model.eval(), [*wide.sites, *narrow.sites])
    shake(attached.parameters().values())
    save_peft(tmp_path, attached, base=str(checkpoints["gpt2"]))
    assert_same_logits(model, loaded_by_peft(checkpoints["gpt2"], tmp_path, caplog))
    ids = torch.tensor([[5, 9, 11]])
    torch.testing.assert_close(ts.load(tmp_path)(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extra", [{}, {"use_rslora": True}, {"bias": "all"}])
@pytest.mark.parametrize("family", THEIRS)
def test_theirs_in_ours(family, extra, checkpoints, tmp_path, caplog):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=9, **THEIRS[family], **extra)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(classifier(checkpoints[family]), config)
    shake(parameter for parameter in theirs.parameters() if parameter.requires_grad)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = ts.load(tmp_path / "theirs")
    assert_same_logits(ours, theirs)
    if not extra:
        opened = open_adapter(tmp_path / "theirs")
        save_peft(tmp_path / "ours", opened.attached, base=str(checkpoints[family]))
        assert_same_logits(ours, loaded_by_peft(checkpoints[family], tmp_path / "ours", caplog))


@pytest.mark.parametrize("family", FUSED)
def test_an_adapter_of_a_fused_matrix_that_does_not_fit(family, checkpoints, tmp_path):
    attached = tuned(checkpoints[family])
    save_peft(tmp_path, attached, base=str(checkpoints[family]))
    file = tmp_path / "adapter_model.safetensors"
    good = load_tensors(file)
    fused = next(n for n in good if n.endswith("lora_B.weight") and any(p in n for p in ("attn", "query_key", "Wqkv")))
    for change in (good[fused][:-1], good[fused][:, :-1], good[fused][0], None):
        bad = {name: tensor for name, tensor in good.items() if name != fused}
        save_file(bad if change is None else bad | {fused: change.contiguous()}, file)
        with pytest.raises(CheckpointError, match=r"lora_A and lora_B|has no place") as caught:
            ts.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_three_dimensional_maps_are_refused_by_name(checkpoints, tiny_data, tmp_path, caplog):
    """PEFT adapts no tensors of three dimensions; the run itself is kept whole, and merges."""
    settings = {"train.max_steps": 2, "train.evaluations": 1, "train.precision": "fp32"}
    data = tiny_data["classification"]
    run = ts.tune(checkpoints["xlnet"], data.file, method="lora", out=tmp_path / "run", settings=settings)
    says = r"encoder\.blocks\.0\.attention\.query is no linear map in transformers, .*: use --as merged"
    with pytest.raises(CheckpointError, match=says):
        ts.export(tmp_path / "run", tmp_path / "peft", form="peft")
    assert not (tmp_path / "peft").exists()
    ts.export(tmp_path / "run", tmp_path / "merged", form="merged")
    kind = transformers.AutoModelForSequenceClassification
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        want = kind.from_pretrained(tmp_path / "merged").eval()(ids).logits
    torch.testing.assert_close(run.model(ids).logits, want, rtol=0, atol=1e-5)

    attached = tuned(checkpoints["xlnet"], targets=("feedforward.up", "feedforward.down"))
    assert why_not_peft(attached) is None
    save_peft(tmp_path, attached, base=str(checkpoints["xlnet"]))
    theirs = loaded_by_peft(checkpoints["xlnet"], tmp_path, caplog)
    with torch.no_grad():
        torch.testing.assert_close(attached.model(ids).logits, theirs.eval()(ids).logits, rtol=0, atol=1e-5)
