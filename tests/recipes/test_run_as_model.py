"""A run of ours, or an adapter, as the model of a new run: it begins where the old one ended and comes back whole."""

import json
import shutil

import pytest
import safetensors.torch
import torch

import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.recipes.open import fingerprint, lineage
from tunesmith.text.batching import Examples
from tunesmith.train.evaluate import logits_of

FAMILIES = ("bert", "roberta", "electra")
METHODS = ("lora", "bitfit", "linear_probe", "full")
SETTINGS = {"train.max_steps": 6, "train.evaluations": 1, "train.precision": "fp32", "train.learning_rate": 0.02}
STILL = {**SETTINGS, "train.max_steps": 1, "train.learning_rate": 1e-30, "train.seed": 9}  # the run ends as it began
TEXTS = ["the film was lovely", "a dull song and it was cold", "plot of the story"]


class Notes:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def stage(self, title):
        pass

    def step(self, progress, total):
        pass


def logits(model):
    encoded = model.tokenizer.encode(TEXTS, None, max_tokens=60)
    return torch.stack(logits_of(model.eval(), Examples(encoded)))


def close(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, float(want.abs().max())))


def tune(model, data, out, method, settings=STILL):
    listener = Notes()
    fields = {"cache": "none"} if method == "linear_probe" else {}
    run = ts.tune(model, data, method=method, out=out, settings=settings, listener=listener, **fields)
    return run, " | ".join(listener.notes)


@pytest.fixture(scope="module")
def data(tiny_data):
    return tiny_data["classification"].file


@pytest.fixture(scope="module")
def old(checkpoints, data, tmp_path_factory):
    """A finished run of each family and method, made once and shared: not to be changed."""
    root = tmp_path_factory.mktemp("old")

    def make(family, method):
        folder = root / f"{family}-{method}"
        if not folder.exists():
            tune(checkpoints[family], data, folder, method, SETTINGS)
        return folder

    return make


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("family", "first"), [("bert", m) for m in METHODS] + [(f, "lora") for f in FAMILIES[1:]])
def test_the_new_run_begins_where_the_old_one_ended(family, first, method, old, data, tmp_path):
    model = old(family, first)
    before = logits(ts.load_run(model).model)
    run, notes = tune(model, data, tmp_path / "new", method)
    if method == "linear_probe" or (first, method) == ("linear_probe", "full"):  # solved anew | see the next test
        assert torch.isfinite(logits(run.model)).all()
    else:
        close(logits(run.model), before)
        assert "fresh" not in notes
    again = ts.load_run(tmp_path / "new")
    assert torch.equal(logits(again.model), logits(run.model))
    assert again.opened.record.base == str(model)
    assert again.opened.record.base_fingerprint == fingerprint(str(model))


def test_full_tuning_of_a_probe_takes_the_head_that_transformers_has(old, data, tmp_path):
    run, notes = tune(old("bert", "linear_probe"), data, tmp_path / "new", "full")
    assert "fresh output layer: the head of" in notes
    assert "has pooling = mean, this one first" in notes
    assert run.model.config.head.pooling == "first"
    assert (tmp_path / "new" / "config.json").is_file()


@pytest.mark.parametrize("first", METHODS)
def test_other_labels_get_a_fresh_output_layer_and_it_is_said(first, old, data, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(data.read_text().replace(",good", ",yes").replace(",bad", ",no"))
    model = old("bert", first)
    was = ts.load_run(model).model.head.output.weight
    run, notes = tune(model, other, tmp_path / "new", "bitfit")
    assert f"fresh output layer: the labels of {model} are bad, good, the data's no, yes" in notes
    assert "not in the checkpoint" not in notes or first == "linear_probe"
    assert (run.model.head.output.weight - was).abs().mean() > 0.01
    assert float(run.model.head.output.weight.detach().std()) < 0.05  # as it is initialised
    if first != "linear_probe":
        assert torch.equal(run.model.head.dense.weight, ts.load_run(model).model.head.dense.weight)
    again = ts.load_run(tmp_path / "new")
    assert torch.equal(logits(again.model), logits(run.model))


def test_another_kind_of_task_gets_a_fresh_output_layer(old, tiny_data, tmp_path):
    """As many tags as the old run had classes, under the same name in the file."""
    rows = [json.loads(line) for line in tiny_data["tagging"].file.read_text().splitlines()]
    for row in rows:
        row["tags"] = ["good" if tag != "O" else "bad" for tag in row["tags"]]
    file = tmp_path / "tags.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = old("bert", "lora")
    run, notes = tune(model, file, tmp_path / "new", "lora")
    assert f"fresh output layer: the head of {model} is for another task" in notes
    assert not torch.isclose(run.model.head.output.weight, ts.load_run(model).model.head.output.weight).any()


def test_a_regression_goes_on(checkpoints, tiny_data, tmp_path):
    file = tiny_data["regression"].file
    first, _ = tune(checkpoints["roberta"], file, tmp_path / "first", "lora", SETTINGS)
    for method in ("lora", "full"):
        run, notes = tune(tmp_path / "first", file, tmp_path / method, method)
        close(logits(run.model), logits(first.model))
        assert "fresh" not in notes


@pytest.fixture
def chain(checkpoints, data, tmp_path):
    """Runs on runs: the base, LoRA, BitFit on it, LoRA on that, and a probe on that."""
    folders = [tmp_path / "base"]
    shutil.copytree(checkpoints["bert"], folders[0])
    for number, method in enumerate(("lora", "bitfit", "lora", "linear_probe")):
        tune(folders[-1], data, tmp_path / f"{number}-{method}", method, {**SETTINGS, "train.seed": number})
        folders.append(tmp_path / f"{number}-{method}")
    return folders


def test_chains(chain, data, tmp_path):
    assert lineage(str(chain[-1])) == [str(folder) for folder in reversed(chain)]
    name = ts.load_run(chain[-1]).model
    assert logits(name).std() > 0
    run, _ = tune(chain[3], data, tmp_path / "whole", "full")
    close(logits(run.model), logits(ts.load_run(chain[3]).model))
    assert lineage(str(tmp_path / "whole")) == [str(tmp_path / "whole")]
    shutil.rmtree(chain[0])
    assert torch.equal(logits(ts.load_run(tmp_path / "whole").model), logits(run.model))
    with pytest.raises(CheckpointError, match="its base model cannot be read: .*base: no such folder"):
        ts.load_run(chain[-1])


def damage_tensor(path):
    tensors = safetensors.torch.load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def damage_field(path, *, key):
    tree = json.loads(path.read_text())
    tree[key] = 3
    path.write_text(json.dumps(tree))


DAMAGES = {
    "weights of the base": (0, "model.safetensors", damage_tensor),
    "weights of an adapter": (1, "adapter_model.safetensors", damage_tensor),
    "strength of an adapter": (1, "adapter_config.json", lambda path: damage_field(path, key="lora_alpha")),
    "tensors of BitFit": (2, "delta.safetensors", damage_tensor),
    "record of BitFit": (2, "tunesmith.json", lambda path: damage_field(path, key="base_seed")),
    "adapter of the last but one": (3, "adapter_model.safetensors", damage_tensor),
}


def test_what_changes_anywhere_below_is_noticed(chain):
    for at, file, damage in DAMAGES.values():
        path = chain[at] / file
        kept = path.read_bytes()
        damage(path)
        with pytest.raises(CheckpointError, match="has changed since: the run no longer fits it"):
            ts.load_run(chain[-1])
        path.write_bytes(kept)
        ts.load_run(chain[-1])


def test_a_circle_is_refused_in_one_line(chain, data, tmp_path):
    record = json.loads((chain[1] / "tunesmith.json").read_text())
    (chain[1] / "tunesmith.json").write_text(json.dumps({**record, "base": str(chain[3])}))
    for use in (
        lambda: ts.load_run(chain[1]),
        lambda: ts.load(chain[3]),
        lambda: tune(chain[2], data, tmp_path / "n", "lora"),
    ):
        with pytest.raises(CheckpointError, match="which is made on it") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_an_adapter_of_peft_as_model(old, checkpoints, data, tmp_path):
    """The folder as PEFT would have left it: nothing in it but the adapter."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(old("bert", "lora") / name, folder)
    run, _ = tune(folder, data, tmp_path / "new", "bitfit")
    close(logits(run.model), logits(ts.load_run(old("bert", "lora")).model))
    assert torch.equal(logits(ts.load_run(tmp_path / "new").model), logits(run.model))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(folder)}))
    with pytest.raises(CheckpointError, match="which is made on it"):
        ts.load(folder)


def test_convert_and_export(chain, tmp_path):
    import transformers

    want = ts.load_run(chain[3])
    ts.convert(chain[3], tmp_path / "converted")
    ts.export(chain[3], tmp_path / "merged", form="merged")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("converted", "merged")]
    assert files[0] == files[1]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted").eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        close(theirs(ids).logits, want.model(ids).logits)
    assert "base_model: base\n" in (tmp_path / "merged" / "README.md").read_text()
    with pytest.raises(CheckpointError, match="no model that PEFT can load: use --as merged"):
        ts.export(chain[3], tmp_path / "adapter", form="peft")
    assert not (tmp_path / "adapter").exists()


def test_what_is_no_finished_run_is_said(old, checkpoints, data, tmp_path):
    for method in ("lora", "full"):
        run = shutil.copytree(old("bert", method), tmp_path / method)
        (run / "metrics.json").unlink()
        with pytest.raises(CheckpointError, match="unfinished: the same command with --resume"):
            tune(run, data, tmp_path / "new", "bitfit")
    ts.compare(checkpoints["bert"], data, methods=["bitfit"], seeds=1, out=tmp_path / "many", settings=STILL)
    with pytest.raises(CheckpointError, match=r"a comparison, not a model: .*many/bitfit/seed-9$"):
        tune(tmp_path / "many", data, tmp_path / "new", "bitfit")
    assert not (tmp_path / "new").exists()
    tune(tmp_path / "many" / "bitfit" / "seed-9", data, tmp_path / "new", "lora")


def test_a_run_in_memory_is_a_model_as_well(old, data, tmp_path):
    model = ts.load(old("bert", "bitfit"))
    run, _ = tune(model, data, tmp_path / "new", "lora")
    close(logits(run.model), logits(model))
    again = ts.load_run(tmp_path / "new")
    assert again.opened.record.base == str(old("bert", "bitfit"))
    assert torch.equal(logits(again.model), logits(run.model))
