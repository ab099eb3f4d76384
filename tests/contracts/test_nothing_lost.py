"""Every tensor that a method changes is saved, and a run comes back with the same bits, in any process.

This file is also the program of the fresh process: ``python test_nothing_lost.py LIST OUT``.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_models import families

import tunesmith as ts
from tunesmith.base.choices import names
from tunesmith.base.errors import CheckpointError
from tunesmith.text.batching import Examples
from tunesmith.text.table import Table
from tunesmith.train.evaluate import logits_of

TASKS = ("classification", "pair", "multilabel", "regression", "tagging")
MORE = dict.fromkeys(("bert", "roberta", "electra"), TASKS)
MORE |= {
    "llama": ("classification", "tagging"),
    "xlnet": ("classification", "pair"),
    "t5": ("tagging", "classification"),
}
SETTINGS = {"train.max_steps": 3, "train.evaluations": 1, "train.batch_size": 8, "train.seed": 5}


def logits(run, texts):
    """The logits of all texts in one tensor."""
    columns = run._columns([tuple(text) if run.task.pair else text for text in texts])
    table = Table(columns=columns, source="texts", lines=list(range(len(texts))))
    encoded = run.model.tokenizer.encode(*run.task.texts_of(table), max_tokens=run.max_tokens)
    return torch.cat([row.flatten() for row in logits_of(run.model, Examples(encoded))])


def bits(tensor):
    return tuple(tensor.shape), tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def lost(model, base, folder):
    """Names of the tuned model's tensors that are neither the base model's nor in the folder.

    Where the file holds several of ours as one, they are looked for in what it gives when it is read.
    """
    were = dict(base.named_parameters())
    held = [tensor for file in folder.glob("*.safetensors") for tensor in ts_load(file).values()]
    if model.family.fused:
        held += ts.load_run(folder).model.parameters()
    saved = Counter(map(bits, held))
    found = []
    for name, parameter in model.named_parameters():
        old = were.get(name.replace(".base.", "."))
        if old is not None and torch.equal(old, parameter):
            continue
        if not saved[bits(parameter)]:
            found.append(name)
        saved[bits(parameter)] -= 1
    return found


def ts_load(file):
    return safetensors.torch.load_file(file)


@pytest.mark.parametrize("family", families())
def test_every_method_task_and_family(family, checkpoints, tiny_data, tmp_path):
    base = ts.load(checkpoints[family])
    wanted, faults = {}, []
    for task in MORE.get(family, ("classification",)):
        for method in names("method"):
            precision = "bf16" if (family, task) == ("bert", "pair") else "fp32"
            settings = {**SETTINGS, "train.precision": precision}
            folder = tmp_path / f"{task}-{method}"
            run = ts.tune(checkpoints[family], tiny_data[task].file, method=method, out=folder, settings=settings)
            assert method == "full" or len(list(folder.glob("*.safetensors"))) == 1
            faults += [f"{folder.name}: {name} is not saved" for name in lost(run.model, base, folder)]
            wanted[folder.name] = logits(run, tiny_data[task].texts)
            assert wanted[folder.name].std() > 0
            if not torch.equal(logits(ts.load_run(folder), tiny_data[task].texts), wanted[folder.name]):
                faults.append(f"{folder.name}: other logits after loading")
    assert not faults

    todo = [[str(tmp_path / name), tiny_data[name.partition("-")[0]].texts] for name in wanted]
    (tmp_path / "list.json").write_text(json.dumps(todo), encoding="utf-8")
    subprocess.run([sys.executable, __file__, tmp_path / "list.json", tmp_path / "out.safetensors"], check=True)
    got = ts_load(tmp_path / "out.safetensors")
    assert got.keys() == wanted.keys()
    assert [name for name in wanted if bits(got[name]) != bits(wanted[name])] == []


def test_a_model_in_memory_must_be_found_again(checkpoints, tiny_data, tmp_path):
    """A run of a method that saves only what it changed would come back on other weights."""
    model, data = ts.load(checkpoints["bert"]), tiny_data["classification"].file
    run = ts.tune(model, data, method="bitfit", out=tmp_path / "same", settings=SETTINGS)
    texts = tiny_data["classification"].texts
    assert torch.equal(logits(ts.load_run(tmp_path / "same"), texts), logits(run, texts))
    with torch.no_grad():
        model.encoder.blocks[1].attention.query.weight[0, 0] += 1
    for method in ("lora", "bitfit", "linear_probe"):
        with pytest.raises(CheckpointError, match=r"encoder\.blocks\.1\.attention\.query\.weight"):
            ts.tune(model, data, method=method, out=tmp_path / method, settings=SETTINGS)
        assert not (tmp_path / method).exists()
    run = ts.tune(model, data, method="full", out=tmp_path / "full", settings=SETTINGS)
    assert torch.equal(logits(ts.load_run(tmp_path / "full"), texts), logits(run, texts))


def test_an_adapted_model_is_no_base_but_its_merged_folder_is(checkpoints, tiny_data, tmp_path):
    """What is saved beside it would be lost, or hold names that no program knows."""
    data, tokens = tiny_data["classification"].file, torch.tensor([[2, 9, 11, 3]])
    ts.tune(checkpoints["bert"], data, method="lora", out=tmp_path / "run", settings=SETTINGS)
    adapted = ts.load(tmp_path / "run")
    for method in names("method"):
        with pytest.raises(CheckpointError, match=r"has an adapter .* tunesmith.save"):
            ts.tune(adapted, data, method=method, out=tmp_path / method, settings=SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    before = adapted(tokens).logits
    ts.save(adapted, tmp_path / "plain")
    assert torch.equal(adapted(tokens).logits, before)
    torch.testing.assert_close(ts.load(tmp_path / "plain")(tokens).logits, before, rtol=0, atol=1e-5)
    ts.tune(tmp_path / "plain", data, method="full", out=tmp_path / "more", settings=SETTINGS)


def test_another_tokenizer_is_used_and_saved(checkpoints, tiny_data, tmp_path):
    vocabulary = (checkpoints["bert"] / "vocab.txt").read_text(encoding="utf-8").split("\n")
    (tmp_path / "other").mkdir()
    vocabulary[5], vocabulary[6] = vocabulary[6], vocabulary[5]
    (tmp_path / "other" / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    settings, texts = {**SETTINGS, "tokenizer": str(tmp_path / "other")}, tiny_data["classification"].texts
    for number, model in enumerate([checkpoints["bert"], ts.load(checkpoints["bert"])]):
        out = tmp_path / str(number)
        run = ts.tune(model, tiny_data["classification"].file, method="bitfit", out=out, settings=settings)
        assert run.model.tokenizer.token_id(vocabulary[5]) == 5
        assert torch.equal(logits(ts.load_run(out), texts), logits(run, texts))


if __name__ == "__main__":
    torch.manual_seed(999)
    runs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    results = {Path(folder).name: logits(ts.load_run(folder), texts) for folder, texts in runs}
    safetensors.torch.save_file(results, sys.argv[2])
