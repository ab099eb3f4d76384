"""Bad settings, arguments and texts: one line that names the setting or the line, exit code 2, nothing left behind."""

import io
import json
import subprocess
import sys

import pytest

SETTINGS = {
    "misspelt": (["train.epocs=3"], "train.epocs: no such setting: did you mean epochs?"),
    "misspelt table": (["trian.epochs=3"], "trian: no such setting: did you mean train?"),
    "wrong type": (["train.epochs=many"], "train.epochs: must be a valid number"),
    "a fraction of a step": (["train.max_steps=1.5"], "train.max_steps: must be a valid integer"),
    "a table as a number": (["train=5"], "train: "),
    "rank 0": (["method.rank=0"], "method.rank: must be greater than or equal to 1, got 0"),
    "negative rate": (["train.learning_rate=-1"], "train.learning_rate: must be greater than 0, got -1"),
    "infinite rate": (["train.learning_rate=inf"], "train.learning_rate: must be a finite number"),
    "no epochs": (["train.epochs=0"], "train.epochs: must be greater than 0, got 0"),
    "dropout 1": (["method.dropout=1"], "method.dropout: must be less than 1, got 1"),
    "negative seed": (["train.seed=-1"], "train.seed: must be greater than or equal to 0, got -1"),
    "precision fp8": (["train.precision=fp8"], "train.precision: must be 'auto', 'bf16' or 'fp32', got 'fp8'"),
    "steps of more than any memory": (
        ["train.batch_size=1000000000000"],
        "train.batch_size: must be less than or equal",
    ),
    "evaluations without end": (["train.evaluations=1000000000000"], "train.evaluations: must be less than or equal"),
    "a date": (["train.epochs=2026-01-01"], "train.epochs: must be a valid number, got datetime.date"),
    "too many digits": (["train.seed=" + "9" * 5000], "train.seed: unable to parse"),
    "nested too deeply": (["method.rank=" + "[" * 100_000], "method.rank: must be a valid integer"),
    "dev fraction 1": (["data.dev_fraction=1"], "data.dev_fraction: must be less than 1, got 1"),
    "no tokens": (["data.max_tokens=0"], "data.max_tokens: must be greater than or equal to 4, got 0"),
    "unknown method": (["--method", "loar"], "method.name: there is no method 'loar': did you mean lora?"),
    "method that is a path": (["--method", "../lora"], "method.name: there is no method '../lora'"),
    "method without a module": (["--method", ":Mine"], "method.name: cannot import ':Mine'"),
    "method from nowhere": (["--method", "no_such_module:Mine"], "method.name: cannot import 'no_such_module:Mine'"),
    "method that is none": (["--method", "json:loads"], "method.name: 'json:loads' is not a settings class"),
    "method a task": (["--method", "tunesmith.tasks.regression:RegressionConfig"], "method: "),
    "method a number": (["method=5"], "method.name: "),
    "unknown field": (["method.rnak=4"], "method.rnak: no such setting: did you mean rank?"),
    "field of another method": (["--method", "full", "method.rank=4"], "method.rank: no such setting"),
    "no targets": (["method.targets=[]"], "method.targets: "),
    "unknown task": (["data.task=clustering"], "data.task: there is no task 'clustering'"),
    "no equals sign": (["train.epochs"], "train.epochs: not a setting: write it as name.name=value"),
    "no name": (["=3"], "=3: not a setting"),
    "half a name": (["train.=3"], "train.=3: not a setting"),
}
LATE = {  # what only the model or the machine can tell
    "targets of no site": (["method.targets=attention.quarry"], "method.targets: no site is named 'attention.quarry'"),
    "layer too deep": (
        ["--method", "linear_probe", "method.layer=9"],
        "method.layer: must be in 0..2 for this model, got 9",
    ),
    "layer of the own head": (
        ["--method", "linear_probe", "method.layer=1", "method.pooling=head"],
        "method.layer: the family's own head reads the last layer",
    ),
    "device that is not there": (["train.device=cuda:7"], "train.device: cuda:7 is not there"),
    "device of another kind": (["train.device=tpu"], "train.device: must be cpu, cuda or cuda:N, got 'tpu'"),
    "device that computes nothing": (["train.device=meta"], "train.device: must be cpu, cuda or cuda:N, got 'meta'"),
    "negative device": (["train.device=cuda:-1"], "train.device: must be cpu, cuda or cuda:N, got 'cuda:-1'"),
}
FILES = {
    "missing": (None, "cannot read the settings: No such file"),
    "no TOML": ("train = [", "not a TOML file"),
    "not UTF-8": (b"x = '\xff'", "cannot read the settings: not UTF-8"),
    "nested too deeply": ("x = " + "[" * 100_000, "not a TOML file: nested too deeply"),
    "unknown key": ("[train]\nepocs = 3\n", "train.epocs: no such setting"),
    "unknown table": ("[trian]\nepochs = 3\n", "trian: no such setting"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_setting(desk, name):
    arguments, says = SETTINGS[name]
    line = desk.refused("tune", desk.checkpoint, desk.reviews, "--out", desk.out, *arguments, says=says)
    assert line.startswith(says)


@pytest.mark.parametrize("name", LATE)
def test_setting_that_does_not_fit_the_model_or_machine(desk, name):
    arguments, says = LATE[name]
    call = ("tune", desk.checkpoint, desk.reviews, "--out", desk.out, *arguments)
    assert desk.refused(*call, says=says, notes=True).startswith(says)


@pytest.mark.parametrize("name", FILES)
def test_bad_settings_file(desk, name):
    content, says = FILES[name]
    path = desk.folder / "my.toml"
    if content is not None:
        desk.write(path.name, content)
    desk.refused("tune", desk.checkpoint, desk.reviews, "--out", desk.out, "--file", path, says=says)


COMPARE = {
    "unknown method": (["--methods", "lora,loar"], "method.name: there is no method 'loar'"),
    "method twice": (["--methods", "lora,lora"], "methods: must be names, each once, got lora,lora"),
    "no methods": (["--methods", ""], "methods: must be names, each once, got none"),
    "only commas": (["--methods", " , "], "methods: must be names, each once, got none"),
    "no seeds": (["--seeds", "0"], "seeds: must be at least 1, got 0"),
    "negative seeds": (["--seeds", "-3"], "seeds: must be at least 1, got -3"),
    "setting of no method in particular": (["method.rank=4"], "method.rank: say which method it is for"),
    "method as a setting": (["method=lora"], "method: the methods are named by --methods"),
    "method's settings no table": (["method.lora=4"], "method.lora: must be a table of its settings, got 4"),
    "setting of a method that is not compared": (
        ["--methods", "bitfit,lora", "method.full.x=1"],
        "method.full: full is not compared: add it to --methods (now bitfit,lora), or leave its settings out",
    ),
    "misspelt field of one method": (["method.lora.rnak=4"], "method.rnak: no such setting"),
    "misspelt": (["train.epocs=3"], "train.epocs: no such setting"),
}


@pytest.mark.parametrize("name", COMPARE)
def test_bad_comparison(desk, name):
    arguments, says = COMPARE[name]
    desk.refused("compare", desk.checkpoint, desk.reviews, "--out", desk.out, *arguments, says=says)


COMMANDS = {
    "unknown verb": (["tuen"], "tunesmith tuen: No such command 'tuen'. Did you mean 'tune'"),
    "unknown option": (["tune", "m", "d", "--out", "o", "--reusme"], "tunesmith tune: No such option: --reusme"),
    "option of another verb": (
        ["predict", "r", "f", "--method", "lora"],
        "tunesmith predict: No such option: --method",
    ),
    "missing argument": (["tune"], "tunesmith tune: Missing argument 'MODEL'"),
    "missing option": (["tune", "m", "d"], "tunesmith tune: Missing option '--out'"),
    "option without its value": (["tune", "m", "d", "--out"], "tunesmith tune: Option '--out' requires an argument"),
    "extra argument": (["convert", "m", "o", "p"], "tunesmith convert: Got unexpected extra argument"),
    "seeds no number": (["compare", "m", "d", "--out", "o", "--seeds", "few"], "Invalid value for '--seeds'"),
    "unknown form": (["export", "r", "o", "--as", "onnx"], "tunesmith export: Invalid value for '--as'"),
    "no form": (["export", "r", "o"], "tunesmith export: Missing option '--as'"),
    "list an unknown family": (["list", "flavour"], "flavour: there is no family of that name"),
    "show an unknown family": (["show", "flavour", "sweet"], "flavour: there is no family of that name"),
    "show an unknown name": (["show", "method", "loar"], "method: there is no method 'loar': did you mean lora?"),
    "show a hidden part": (["show", "method", "_peft"], "method: there is no method '_peft'"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command(desk, name):
    arguments, says = COMMANDS[name]
    desk.refused(*arguments, says=says)


def test_command_of_its_own_process(desk):
    """As a user types it: no warning of a library beside the line."""
    call = [sys.executable, "-c", "from tunesmith.cli.app import main; main()", "tune", "m", desk.folder / "gone.csv"]
    done = subprocess.run([*call, "--out", desk.out], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == f"{desk.folder / 'gone.csv'}: no such file or folder: check the path\n"
    assert not done.stdout
    assert not desk.out.exists()


def test_no_command_is_help_and_no_error(desk):
    code, lines, printed = desk.run()
    assert code == 0
    assert not lines
    assert "quickstart" in printed


# Texts to predict, and data to evaluate.

TEXTS = {
    "missing file": ("gone.csv", None, "gone.csv: no such file"),
    "missing text file": ("gone.txt", None, "gone.txt: cannot read: No such file"),
    "unknown extension": ("t.xlsx", "text\na\n", "t.xlsx: has an extension that is not supported"),
    "no text column": ("t.csv", "body\na film\n", "t.csv: has no column 'text': it has body"),
    "empty cell": ("t.jsonl", '{"text": "a"}\n{"text": null}\n', "t.jsonl line 2: column 'text' is empty"),
    "text a list": ("t.jsonl", '{"text": ["a"]}\n', "t.jsonl line 1: column 'text' must be a text, got list"),
    "no lines": ("t.txt", "", "t.txt: holds no lines"),
    "not UTF-8": ("t.txt", b"caf\xe9\n", "t.txt: cannot read: not UTF-8"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_bad_texts(desk, runs, name):
    file, content, says = TEXTS[name]
    path = desk.folder / file
    if content is not None:
        desk.write(file, content)
    desk.refused("predict", runs("lora"), path, says=says)


INPUTS = {
    "empty": ("lora", "classification", b"", "input: holds no lines"),
    "not UTF-8": ("lora", "classification", b"a film\ncaf\xe9\n", "input: cannot read: not UTF-8"),
    "pair without a tab": ("lora", "pair", b"a\tb\na film\n", "input line 2: this run reads pairs: put a tab"),
    "no words": ("lora", "tagging", b"a film\n\n", "input line 2: column 'tokens' must be a list of words"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_bad_lines_on_standard_input(desk, runs, monkeypatch, name):
    method, task, content, says = INPUTS[name]
    run = runs(method, task)
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")  # as in the C locale
    monkeypatch.setattr(sys, "stdin", stream)
    desk.refused("predict", run, "-", says=says)


HELD = {
    "no labels": ("text\na film\n", [], "d.csv: has no column 'label'"),
    "unknown label": ("text,label\na,good\nb,perhaps\n", [], "d.csv line 3: column 'label' holds 'perhaps'"),
    "missing split": ("text,label\na,good\n", ["--split", "test"], "d.csv: has no split 'test': it has train"),
}


@pytest.mark.parametrize("name", HELD)
def test_bad_data_to_evaluate(desk, runs, name):
    content, arguments, says = HELD[name]
    path = desk.write("d.csv", content)
    desk.refused("evaluate", runs("lora"), path, *arguments, "--json", says=says)


# Runs.

RUNS = {
    "gone": (lambda run: [path.unlink() for path in run.iterdir()] and run.rmdir(), "no such folder"),
    "no run": (lambda run: keep_only(run, "tokenizer.json"), "not a run: it has no tunesmith.json"),
    "begun and no more": (lambda run: keep_only(run, "run.toml"), "this run is unfinished: the same command with"),
    "adapter of unknown task": (
        lambda run: (run / "tunesmith.json").unlink(),
        "an adapter made elsewhere says nothing",
    ),
    "unfinished": (
        lambda run: (run / "metrics.json").unlink(),
        "this run is unfinished: the same command with --resume",
    ),
    "record no JSON": (lambda run: (run / "tunesmith.json").write_text("{"), "tunesmith.json: not a JSON file"),
    "record a list": (lambda run: (run / "tunesmith.json").write_text("[]"), "tunesmith.json: must hold a JSON object"),
    "record of another version": (lambda run: record(run, format=99), "tunesmith.json: format must be 1, got 99"),
    "record with a part missing": (lambda run: record(run, base=None), "tunesmith.json: base: "),
    "record of an unknown method": (
        lambda run: record(run, method={"name": "magic"}),
        "tunesmith.json: method.name: there is",
    ),
    "record of an impossible method": (
        lambda run: record(run, method={"name": "lora", "rank": 0}),
        "tunesmith.json: method.rank",
    ),
    "record that names foreign code": (
        lambda run: record(run, method={"name": "os:path"}),
        "tunesmith.json: names 'os:path'",
    ),
    "base gone": (
        lambda run: record(run, base="/gone/model"),
        "its base model cannot be read: /gone/model: no such folder",
    ),
    "metrics no JSON": (
        lambda run: (run / "metrics.json").write_text("{"),
        "metrics.json: damaged, so this run does not count as finished",
    ),
    "adapter truncated": (
        lambda run: truncate(run / "adapter_model.safetensors"),
        "adapter_model.safetensors: damaged",
    ),
    "adapter gone": (
        lambda run: (run / "adapter_model.safetensors").unlink(),
        "adapter_model.safetensors: no such file",
    ),
    "adapter settings damaged": (lambda run: truncate(run / "adapter_config.json"), "adapter_config.json: not a JSON"),
}


def record(run, **changes):
    tree = {**json.loads((run / "tunesmith.json").read_text()), **changes}
    (run / "tunesmith.json").write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


def keep_only(run, name):
    for path in run.iterdir():
        if path.name != name:
            path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", RUNS)
def test_bad_run(desk, runs, name):
    damage, says = RUNS[name]
    run = desk.copy(runs("lora"), "run")
    damage(run)
    desk.refused("predict", run, desk.reviews, says=says)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_run_whose_base_model_has_changed(desk, runs, verb):
    base = desk.copy(desk.checkpoint, "base")
    run = desk.copy(runs("lora"), "run")
    record(run, base=str(base))
    assert desk.run("predict", run, desk.reviews)[0] == 0
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    desk.refused(verb, run, desk.reviews, says=f"{run}: its base model {base} has changed")


DELTAS = {
    "truncated": (lambda run: truncate(run / "delta.safetensors"), "delta.safetensors: damaged"),
    "gone": (lambda run: (run / "delta.safetensors").unlink(), "delta.safetensors: no such file"),
    "of another model": (lambda run: other_delta(run), "delta.safetensors: "),
}


def other_delta(run):
    import torch
    from safetensors.torch import save_file

    save_file({"classifier.weight": torch.zeros(2, 32)}, run / "delta.safetensors")


@pytest.mark.parametrize("name", DELTAS)
def test_bad_changes_of_a_run(desk, runs, name):
    damage, says = DELTAS[name]
    run = desk.copy(runs("linear_probe"), "run")
    damage(run)
    desk.refused("predict", run, desk.reviews, says=says)


def test_whole_model_of_a_run_damaged(desk, runs):
    run = desk.copy(runs("full"), "run")
    truncate(run / "model.safetensors")
    desk.refused("predict", run, desk.reviews, says="model.safetensors: damaged")
