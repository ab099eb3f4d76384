"""The verbs from end to end on tiny checkpoints: what they print and write is what the README promises."""

import csv
import json

import pytest

import tunesmith as ts
from tunesmith.cli.app import main

QUICK = ["train.max_steps=4", "train.evaluations=2", "train.precision=fp32"]


@pytest.fixture
def run_cli(capsys):
    def run(*arguments, expect=0):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        seen = capsys.readouterr()
        assert left.value.code == expect, seen.err
        return seen.out

    return run


@pytest.fixture(scope="module")
def tuned(checkpoints, tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    settings = {"train.max_steps": 4, "train.evaluations": 2, "train.precision": "fp32"}
    ts.tune(checkpoints["bert"], tiny_data["classification"].file, out=out, settings=settings, rank=4)
    return out


def test_tune_writes_what_is_promised(tuned):
    metrics = json.loads((tuned / "metrics.json").read_text())
    for name in (
        "dev", "examples_per_second", "tokens_per_second", "train_seconds", "peak_memory_bytes",
        "trainable_parameters", "total_parameters", "saved_bytes",
    ):  # fmt: skip
        assert name in metrics
    assert set(metrics["dev"]) == {"accuracy", "f1", "macro_f1", "matthews"}
    assert metrics["trainable_parameters"] < metrics["total_parameters"]
    assert metrics["saved_bytes"] == (tuned / "adapter_model.safetensors").stat().st_size
    assert not (tuned / "checkpoint").exists()
    assert "<html" in (tuned / "report.html").read_text()


def test_run_toml_repeats_the_run(tuned, checkpoints, tiny_data, tmp_path, run_cli):
    again = tmp_path / "again"
    data = tiny_data["classification"].file
    run_cli("tune", checkpoints["bert"], data, "--out", again, "--file", tuned / "run.toml")
    name = "adapter_model.safetensors"
    assert (again / name).read_bytes() == (tuned / name).read_bytes()
    assert (again / "run.toml").read_text() == (tuned / "run.toml").read_text()


def test_evaluate_prints_one_object_and_nothing_else(tuned, tiny_data, tmp_path, run_cli):
    text = tiny_data["classification"].file.read_text()
    file = tmp_path / "more.csv"
    file.write_text(text)
    printed = json.loads(run_cli("evaluate", tuned, file, "--json"))
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    predicted = ts.load_run(tuned).predict([row["text"] for row in rows])
    hits = sum(one["label"] == row["label"] for one, row in zip(predicted, rows, strict=True))
    assert printed["accuracy"] == hits / len(rows)


def test_evaluating_the_dev_split_gives_metrics_json(checkpoints, tiny_data, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = tiny_data["classification"].file.read_text().splitlines(keepends=True)
    (folder / "train.csv").write_text("".join(lines[:31]))
    (folder / "validation.csv").write_text("".join([lines[0], *lines[31:]]))
    settings = {"train.max_steps": 3, "train.evaluations": 1, "train.precision": "bf16"}
    run = ts.tune(checkpoints["electra"], folder, method="full", out=tmp_path / "run", settings=settings)
    name, metrics = ts.evaluate(tmp_path / "run", folder)
    assert name == "dev, 10 rows"
    assert metrics == run.metrics["dev"]


@pytest.mark.parametrize("task", ["classification", "pair", "multilabel", "regression", "tagging"])
def test_predict(task, checkpoints, tiny_data, tmp_path, run_cli):
    data = tiny_data[task]
    settings = {"train.max_steps": 2, "train.evaluations": 1, "train.precision": "fp32"}
    run = ts.tune(checkpoints["bert"], data.file, method="bitfit", out=tmp_path / "run", settings=settings)
    rows = run.predict(data.texts)
    columns = {"pair": ("text_a", "text_b"), "tagging": ("tokens",)}.get(task, ("text",))
    file = tmp_path / "new.jsonl"
    cells = data.texts if task == "pair" else [(text,) for text in data.texts]
    file.write_text("".join(json.dumps(dict(zip(columns, cell, strict=True))) + "\n" for cell in cells))
    printed = [json.loads(line) for line in run_cli("predict", tmp_path / "run", file).splitlines()]
    assert printed == rows
    for row, text in zip(rows, data.texts, strict=True):
        if task == "regression":
            assert isinstance(row["value"], float)
        elif task == "tagging":
            assert len(row["tags"]) == len(text)
        elif task == "multilabel":
            assert all(row["probabilities"][label] >= 0.5 for label in row["label"])
        else:
            assert sum(row["probabilities"].values()) == pytest.approx(1)
            assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)


def test_texts_that_are_too_long_are_counted_and_said(checkpoints, tmp_path, run_cli, capsys):
    file = tmp_path / "long.csv"
    rows = [f"{'film ' * (60 if i < 3 else 2)},{i % 2}\n" for i in range(20)]
    file.write_text("text,label\n" + "".join(rows))
    with pytest.raises(SystemExit):
        main(
            ["tune", str(checkpoints["bert"]), str(file), "--out", str(tmp_path / "run"), "data.max_tokens=20", *QUICK]
        )
    notes = capsys.readouterr().err
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["truncated"]
    assert sum(counts.values()) == 3
    assert "texts cut to 20 tokens" in notes
    assert "no dev split: took 2 of 20 rows, stratified by label" in notes


def test_compare(checkpoints, tiny_data, tmp_path, run_cli):
    out = tmp_path / "compared"
    methods = "linear_probe,bitfit,lora"
    arguments = ["compare", checkpoints["bert"], tiny_data["classification"].file, "--out", out, *QUICK]
    arguments += ["method.lora.rank=2", "--methods", methods, "--seeds", "2"]
    run_cli(*arguments)
    with (out / "leaderboard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == set(methods.split(","))
    assert all(row["seeds"] == "2" for row in rows)
    assert json.loads((out / "lora" / "seed-1" / "adapter_config.json").read_text())["r"] == 2
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/metrics.json")}
    assert len(before) == 6
    run_cli(*arguments, "--resume")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_best_method_is_chosen_by_dev_and_reported_on_test(checkpoints, tmp_path):
    """The test split holds the opposite of what is to be learnt: who is best there has learnt least."""
    rows = [(f"the film was {'good' if i % 2 else 'bad'} it was a story", "yes" if i % 2 else "no") for i in range(24)]
    for name, flip in (("train", False), ("dev", False), ("test", True)):
        cells = [(text, {"yes": "no", "no": "yes"}[label] if flip else label) for text, label in rows]
        path = tmp_path / "data" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in cells))
    settings = {"train.max_steps": 1, "train.learning_rate": 1e-9, "train.precision": "fp32"}
    out = tmp_path / "out"
    arguments = {"methods": ["bitfit", "linear_probe"], "seeds": 1, "settings": settings}
    found = ts.compare(checkpoints["bert"], tmp_path / "data", out=out, **arguments)
    scores = {name: json.loads((out / name / "seed-0" / "metrics.json").read_text()) for name in arguments["methods"]}
    assert scores["linear_probe"]["dev"]["accuracy"] > scores["bitfit"]["dev"]["accuracy"]
    assert scores["linear_probe"]["test"]["accuracy"] < scores["bitfit"]["test"]["accuracy"]
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["best"] == found.rows[0].method == "linear_probe"
    assert summary["split"] == "test"
    for split in ("dev", "test"):
        assert summary[split] == {"accuracy": scores["linear_probe"][split]["accuracy"]}
    with (out / "leaderboard.csv").open() as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["linear_probe", "bitfit"]
    assert f"tunesmith predict {out / 'linear_probe' / 'seed-0'}" in (out / "report.html").read_text()


def test_export_and_convert(tuned, checkpoints, tmp_path, run_cli):
    run_cli("export", tuned, tmp_path / "merged", "--as", "merged")
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert str(checkpoints["bert"].parent) not in card
    run_cli("convert", tuned, tmp_path / "converted")
    assert (tmp_path / "converted" / "model.safetensors").read_bytes() == (
        tmp_path / "merged" / "model.safetensors"
    ).read_bytes()
    model = ts.load(tuned)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ts.save(model, tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (
        tmp_path / "merged" / "model.safetensors"
    ).read_bytes()
    assert all((p == before[name]).all() for name, p in model.named_parameters())


def test_a_preset_is_tuned_with_a_given_tokenizer(checkpoints, tiny_data, tmp_path):
    settings = {"train.max_steps": 1, "train.evaluations": 1, "train.precision": "fp32"}
    settings["tokenizer"] = str(checkpoints["bert"])
    run = ts.tune("bert_mini", tiny_data["classification"].file, method="full", out=tmp_path / "run", settings=settings)
    again = ts.load_run(tmp_path / "run")
    assert again.predict(["the film"]) == run.predict(["the film"])
