"""PEFT is the oracle of LoRA: our adapters load there, theirs load here, and what is exported runs without us."""

import json
import logging
import warnings

import pytest
import torch

import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, save_tensors
from tunesmith.nn.head.tag import TagConfig
from tunesmith.recipes.open import task_head
from tunesmith.recipes.saved import open_base
from tunesmith.tuning._peft import save_peft
from tunesmith.tuning.lora import LoRAConfig

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

THEIR_OWN = "`is_gradient_checkpointing` is deprecated"  # peft 0.21 asks transformers 5 for it
pytestmark = pytest.mark.filterwarnings(f"ignore:{THEIR_OWN}")

FAMILIES = ("bert", "roberta", "electra")
PROBLEMS = {"single_label": 3, "regression": 1, "tags": 5}
TARGETS = {
    "query, value": {"targets": ("attention.query", "attention.value")},
    "all": {},
    "one block": {"targets": ("*.blocks.1.*",)},
    "rslora": {"scaling": "rslora", "rank": 5, "alpha": 7.0},
}
CORE_KEYS = {  # those of PEFT 0.3, which stops at any other
    *("auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights"),
    *("lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r", "revision", "target_modules", "task_type"),
    *("layers_to_transform", "layers_pattern"),
}


def auto(problem):
    tagging = problem == "tags"
    return transformers.AutoModelForTokenClassification if tagging else transformers.AutoModelForSequenceClassification


def with_task_head(base, problem):
    head = task_head(base, problem)
    change = {"num_labels": PROBLEMS[problem]}
    if not isinstance(head, TagConfig):
        change["problem"] = problem
    return base.with_head(head.model_copy(update=change), seed=1)


def shake(parameters, *, std=0.1):
    """Random values for what trains: nothing may hide behind a zero."""
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=stream) * std)


def batch(vocab_size, pad):
    stream = torch.Generator().manual_seed(7)
    ids = torch.randint(5, vocab_size, (6, 17), generator=stream)
    mask = (torch.arange(17) < torch.tensor([17, 3, 9, 1, 17, 12])[:, None]).long()
    return torch.where(mask.bool(), ids, pad), mask


def assert_same_logits(ours, theirs):
    """Logits of two models on the same padded batch."""
    ids, mask = batch(theirs.config.vocab_size, theirs.config.pad_token_id)
    with torch.no_grad():
        got, want = ours(ids, attention_mask=mask).logits, theirs.eval()(ids, attention_mask=mask).logits
    if got.ndim == 3:
        got, want = got[mask.bool()], want[mask.bool()]
    assert want.std() > 1e-3  # far above the tolerance: not a constant
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, want.abs().max().item()))


def assert_loads_in_peft(ours, folder, base, problem, caplog):
    base_model = auto(problem).from_pretrained(base, num_labels=PROBLEMS[problem])
    before = {name: tensor.clone() for name, tensor in base_model.state_dict().items()}
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", THEIR_OWN)
        theirs = peft.PeftModel.from_pretrained(base_model, folder)
    assert "adapter keys" not in caplog.text
    assert_same_logits(ours, theirs)
    # every tensor of the file has a place there
    placed = peft.get_peft_model_state_dict(theirs)
    saved = load_tensors(folder / "adapter_model.safetensors")
    assert placed.keys() == saved.keys()
    assert all(torch.equal(placed[name], saved[name]) for name in saved)
    return theirs, before


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_in_peft(family, problem, targets, checkpoints, tmp_path, caplog):
    config = LoRAConfig(**TARGETS[targets])
    model = with_task_head(open_base(str(checkpoints[family])), problem)
    attached = config.attach(model, seed=0)
    shake(attached.parameters().values())
    save_peft(tmp_path, attached, base=str(checkpoints[family]))
    theirs, _ = assert_loads_in_peft(model.eval(), tmp_path, checkpoints[family], problem, caplog)
    sites = [name for name, module in theirs.named_modules() if isinstance(module, peft.tuners.lora.Linear)]
    assert len(sites) == len(attached.sites)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(written) <= CORE_KEYS
    assert written["task_type"] == ("TOKEN_CLS" if problem == "tags" else "SEQ_CLS")

    again = ts.load(tmp_path)
    ids, mask = batch(again.config.encoder.vocab_size, 1)
    assert torch.equal(again(ids, attention_mask=mask).logits, model(ids, attention_mask=mask).logits)


def test_ranks_and_strengths_that_differ_in_peft(checkpoints, tmp_path, caplog):
    """Sites of other ranks become patterns; the keys are written because they are set."""
    model = with_task_head(open_base(str(checkpoints["bert"])), "single_label")
    wide = LoRAConfig(targets=("*.blocks.0.attention.query",), rank=3, alpha=2.5).attach(model, seed=0)
    narrow = LoRAConfig(targets=("attention.value", "feedforward.up")).attach(model, seed=0)
    wide = type(wide)(model, [*wide.sites, *narrow.sites])
    shake(wide.parameters().values())
    save_peft(tmp_path, wide, base=str(checkpoints["bert"]))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(written) == (CORE_KEYS - {"layers_to_transform", "layers_pattern"}) | {"rank_pattern", "alpha_pattern"}
    assert_loads_in_peft(model.eval(), tmp_path, checkpoints["bert"], "single_label", caplog)


THEIRS = {
    "query, value": {"target_modules": ["query", "value"]},
    "all-linear": {"target_modules": "all-linear"},  # BERT's pooler and ELECTRA's projection too
    "rslora": {"target_modules": ["query", "key"], "use_rslora": True, "r": 3},
    "patterns": {
        "target_modules": ["query", "value", "intermediate.dense"],
        "rank_pattern": {"query": 2, "layer.1.attention.self.value": 7},
        "alpha_pattern": {r"layer\.0\.attention\.self\.query": 3, "intermediate.dense": 40},
    },
    "bias all": {"target_modules": ["query", "value"], "bias": "all"},
    "bias lora_only": {"target_modules": ["query", "value"], "bias": "lora_only"},
    "one block": {"target_modules": ["query"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_theirs_in_ours(family, problem, kind, checkpoints, tmp_path):
    fields = {"r": 4, "lora_alpha": 9, **THEIRS[kind]}
    if (problem, kind) == ("tags", "all-linear"):
        fields["exclude_modules"] = ["classifier"]  # PEFT takes it for a target, and stops at it as a head
    theirs = make_adapter(checkpoints[family], problem, peft.LoraConfig, **fields)
    theirs.save_pretrained(tmp_path)
    ours = ts.load(tmp_path)
    assert not ours.training
    assert_same_logits(ours, theirs)


def make_adapter(base, problem, kind, **fields):
    task = "TOKEN_CLS" if problem == "tags" else "SEQ_CLS"
    torch.manual_seed(0)
    model = auto(problem).from_pretrained(base, num_labels=PROBLEMS[problem])
    theirs = peft.get_peft_model(model, kind(task_type=task, **fields))
    shake(parameter for parameter in theirs.parameters() if parameter.requires_grad)
    return theirs


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("LoraConfig", {"target_modules": ["query"], "use_dora": True}, "use_dora"),
        ("LoraConfig", {"target_modules": ["query"], "lora_bias": True}, "lora_bias"),
        ("LoraConfig", {"target_modules": ["query"], "init_lora_weights": "pissa"}, "init_lora_weights"),
        ("LoraConfig", {"target_modules": ["query"], "init_lora_weights": "olora"}, "init_lora_weights"),
        ("LoraConfig", {"target_modules": ["query"], "alora_invocation_tokens": [7]}, "alora_invocation_tokens"),
        ("LoraConfig", {"target_modules": ["query", "word_embeddings"]}, "word_embeddings"),
        ("IA3Config", {"target_modules": ["key"], "feedforward_modules": []}, "IA3"),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Adapter 'default'", "ignore:aLoRA")
def test_what_we_cannot_do_is_refused(kind, fields, says, checkpoints, tmp_path):
    """Rather than run as something else: with PiSSA and OLoRA the base model was changed as well."""
    make_adapter(checkpoints["bert"], "single_label", getattr(peft, kind), **fields).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=says) as caught:
        ts.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_head_that_nobody_saved_is_refused(checkpoints, tmp_path):
    """An adapter for a task whose head stands neither in it nor in its base would give random answers."""
    make_adapter(checkpoints["roberta"], "tags", peft.LoraConfig, target_modules=["query"]).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_tensors(file)
    save_tensors(file, {name: t for name, t in tensors.items() if "classifier" not in name})
    with pytest.raises(CheckpointError, match=r"classifier"):
        ts.load(tmp_path)


@pytest.mark.parametrize("task", ["classification", "pair", "multilabel", "regression", "tagging"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exports_run_without_us(family, task, checkpoints, tiny_data, tmp_path, caplog):
    settings = {"train.max_steps": 3, "train.evaluations": 1, "train.learning_rate": 0.01, "train.precision": "fp32"}
    run = ts.tune(checkpoints[family], tiny_data[task].file, method="lora", out=tmp_path / "run", settings=settings)
    kind = transformers.AutoModelForTokenClassification if task == "tagging" else auto("")
    ts.export(tmp_path / "run", tmp_path / "merged", form="merged")
    whole, report = kind.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_same_logits(run.model, whole)
    assert tuple(whole.config.id2label.values()) == (run.task.labels or ("LABEL_0",))

    ts.export(tmp_path / "run", tmp_path / "peft", form="peft")
    for folder in (tmp_path / "peft", tmp_path / "run"):  # a run is an adapter's folder as it is
        base = kind.from_pretrained(checkpoints[family], num_labels=run.task.num_outputs)
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", THEIR_OWN)
            theirs = peft.PeftModel.from_pretrained(base, folder)
        assert "adapter keys" not in caplog.text
        assert_same_logits(run.model, theirs)
    assert_same_logits(run.model, theirs.merge_and_unload())


@pytest.mark.parametrize("method", ["full", "bitfit", "linear_probe"])
def test_other_methods_export_as_whole_models(method, checkpoints, tiny_data, tmp_path):
    settings = {"train.max_steps": 3, "train.evaluations": 1, "train.precision": "fp32"}
    fields = {"pooling": "head"} if method == "linear_probe" else {}
    file = tiny_data["classification"].file
    run = ts.tune(checkpoints["bert"], file, method=method, out=tmp_path / "run", settings=settings, **fields)
    ts.export(tmp_path / "run", tmp_path / "merged", form="merged")
    assert_same_logits(run.model, auto("").from_pretrained(tmp_path / "merged"))
    with pytest.raises(CheckpointError, match=method):
        ts.export(tmp_path / "run", tmp_path / "peft", form="peft")
