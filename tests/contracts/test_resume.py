"""A run that was killed and resumed ends with the same bits as one that was not.

This file is also the program of a process that is killed: ``python test_resume.py METHOD MODEL DATA OUT STEP SECONDS``.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tunesmith as ts
from tunesmith.base.errors import CheckpointError, SettingError, StorageError
from tunesmith.train.loop import Interrupted

METHODS = {"lora": {"dropout": 0.2}, "bitfit": {}, "full": {}}
STEPS = 9
SETTINGS = {  # dropout is on (0.1 in the checkpoint), a step has several micro-batches, the data is passed twice
    "train.max_steps": STEPS,
    "train.evaluations": 3,
    "train.batch_size": 10,
    "train.micro_batch_tokens": 40,
    "train.learning_rate": 0.01,
    "train.precision": "fp32",
    "train.seed": 3,
}
KEPT = ("*.safetensors", "dev_predictions.jsonl", "curve.json", "run.toml", "tunesmith.json")


class Listener:
    """Does something after a step; knows what it heard."""

    def __init__(self, at=None, action=None):
        self.at, self.action, self.steps, self.notes = at, action, [], []

    def note(self, text):
        self.notes.append(text)

    def stage(self, title):
        self.notes.append(title)

    def step(self, progress, total):
        self.steps.append(progress.step)
        if progress.step == self.at:
            self.action()


def leave():
    raise SystemExit(1)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def tune(method, model, data, out, *, seconds=0, **more):
    settings = {**SETTINGS, "train.checkpoint_seconds": seconds}
    return ts.tune(model, data, method=method, out=out, settings=settings, **METHODS[method], **more)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for pattern in KEPT for path in folder.rglob(pattern)}


def assert_same_files(got, want):
    got, want = files(got), files(want)
    assert got.keys() == want.keys()
    assert [str(name) for name in want if got[name] != want[name]] == []


@pytest.fixture(scope="module")
def undisturbed(checkpoints, tiny_data, tmp_path_factory):
    """Finished runs by method and time between checkpoints, which is part of the record."""
    made = {}

    def make(method, seconds):
        if (method, seconds) not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            listener = Listener()
            model, data = checkpoints["bert"], tiny_data["classification"].file
            tune(method, model, data, out, seconds=seconds, listener=listener)
            assert listener.steps == list(range(1, STEPS + 1))
            made[method, seconds] = out
        return made[method, seconds]

    return make


@pytest.mark.parametrize("seconds", [0, 1e6], ids=["checkpoint each step", "no checkpoint but at evaluations"])
@pytest.mark.parametrize("step", [1, 4, STEPS])
@pytest.mark.parametrize("method", METHODS)
def test_left_and_resumed(method, step, seconds, checkpoints, tiny_data, tmp_path, undisturbed):
    arguments = method, checkpoints["bert"], tiny_data["classification"].file, tmp_path / "run"
    with pytest.raises(SystemExit):
        tune(*arguments, seconds=seconds, listener=Listener(step, leave))
    listener = Listener()
    tune(*arguments, seconds=seconds, listener=listener, resume=True)
    saved = step - 1 if seconds == 0 else 3 * ((step - 1) // 3)
    assert listener.steps == list(range(saved + 1, STEPS + 1))
    assert_same_files(tmp_path / "run", undisturbed(method, seconds))


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_and_resumed(method, checkpoints, tiny_data, tmp_path, undisturbed):
    """Ctrl-C ends the step, saves, and leaves a run that goes on with the next one."""
    arguments = method, checkpoints["bert"], tiny_data["classification"].file, tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        tune(*arguments, seconds=1e6, listener=Listener(2, interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(CheckpointError, match="unfinished"):
        ts.load_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        tune(*arguments, seconds=1e6, listener=Listener(5, interrupt), resume=True)
    listener = Listener()
    tune(*arguments, seconds=1e6, listener=listener, resume=True)
    assert listener.steps == list(range(6, STEPS + 1))
    assert_same_files(tmp_path / "run", undisturbed(method, 1e6))


@pytest.mark.parametrize(("method", "seconds", "goes_on_at"), [("lora", 0, 5), ("full", 1e6, 4)])
def test_killed_and_resumed(method, seconds, goes_on_at, checkpoints, tiny_data, tmp_path, undisturbed):
    arguments = method, checkpoints["bert"], tiny_data["classification"].file, tmp_path / "run"
    killed = subprocess.run([sys.executable, __file__, *map(str, arguments), "5", str(seconds)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "metrics.json").exists()
    listener = Listener()
    tune(*arguments, seconds=seconds, listener=listener, resume=True)
    assert listener.steps == list(range(goes_on_at, STEPS + 1))
    assert_same_files(tmp_path / "run", undisturbed(method, seconds))
    assert not list((tmp_path / "run").rglob(".*"))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_finished_run_is_left_alone(checkpoints, tiny_data, undisturbed):
    out = undisturbed("lora", 0)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    listener = Listener()
    arguments = checkpoints["bert"], tiny_data["classification"].file, out
    run = tune("lora", *arguments, listener=listener, resume=True)
    assert listener.steps == []
    assert "already finished" in listener.notes[-1]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    assert run.predict(["a fine film"]) == ts.load_run(out).predict(["a fine film"])
    with pytest.raises(StorageError, match="--resume"):
        tune("lora", *arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_killed_while_tidying_up(checkpoints, tiny_data, tmp_path, monkeypatch):
    """The last thing a run does is to delete its checkpoint: the next command does it then."""
    arguments = checkpoints["bert"], tiny_data["classification"].file
    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.recipes.tune.remove_quietly", lambda folder: leave())
        with pytest.raises(SystemExit):
            tune("lora", *arguments, tmp_path / "run")
        fixed = {"methods": ["lora"], "seeds": 1, "settings": SETTINGS, "out": tmp_path / "many"}
        with pytest.raises(SystemExit):
            ts.compare(*arguments, **fixed)
    assert len(list(tmp_path.rglob("checkpoint"))) == 2
    listener = Listener()
    tune("lora", *arguments, tmp_path / "run", resume=True, listener=listener)
    ts.compare(*arguments, resume=True, listener=listener, **fixed)
    assert listener.steps == []
    assert list(tmp_path.rglob("checkpoint")) == []


DAMAGES = {
    "emptied": "",
    "no metrics": "{}\n",
    "truncated": '{"dev": {"accu',
    "without a score": '{"dev": {}, "metric": "f1"}',
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_with_damaged_metrics_is_made_again(name, checkpoints, tiny_data, tmp_path, undisturbed):
    """Nobody can tell what it had reached, so it does not count as finished, by itself or in a comparison."""
    arguments = checkpoints["bert"], tiny_data["classification"].file
    run = shutil.copytree(undisturbed("bitfit", 0), tmp_path / "run")
    (run / "metrics.json").write_text(DAMAGES[name], encoding="utf-8")
    for read in (ts.load, ts.load_run):
        with pytest.raises(CheckpointError, match=r"metrics\.json: damaged.*--resume"):
            read(run)
    listener = Listener()
    tune("bitfit", *arguments, run, resume=True, listener=listener)
    assert listener.steps == list(range(1, STEPS + 1))
    assert "metrics.json: damaged, so this run is made again" in " ".join(listener.notes)
    assert_same_files(run, undisturbed("bitfit", 0))
    assert ts.load_run(run).metrics["dev"] == ts.load_run(undisturbed("bitfit", 0)).metrics["dev"]


def test_a_comparison_makes_a_run_with_damaged_metrics_again(checkpoints, tiny_data, tmp_path):
    fixed = {"methods": ["bitfit", "lora"], "seeds": 1, "settings": SETTINGS, "out": tmp_path / "many"}
    arguments = checkpoints["bert"], tiny_data["classification"].file
    whole = ts.compare(*arguments, **fixed)
    damaged, other = (tmp_path / "many" / name / "seed-3" / "metrics.json" for name in fixed["methods"])
    damaged.write_text("{}", encoding="utf-8")
    kept = other.stat().st_mtime_ns
    listener = Listener()
    resumed = ts.compare(*arguments, resume=True, listener=listener, **fixed)
    assert listener.steps == list(range(1, STEPS + 1))
    assert other.stat().st_mtime_ns == kept
    assert [(row.method, row.mean) for row in resumed.rows] == [(row.method, row.mean) for row in whole.rows]
    assert all(row.mean is not None and not row.missing_seeds for row in resumed.rows)


def test_other_settings_are_refused(checkpoints, tiny_data, undisturbed):
    out = undisturbed("lora", 0)
    model, data = checkpoints["bert"], tiny_data["classification"].file
    with pytest.raises(SettingError, match=r"train.checkpoint_seconds: 0.0 -> 5.0\b"):
        tune("lora", model, data, out, seconds=5, resume=True)
    settings = {**SETTINGS, "train.checkpoint_seconds": 0, "train.seed": 4, "train.weight_decay": 0.5}
    with pytest.raises(SettingError) as caught:
        ts.tune(checkpoints["electra"], data, method="lora", out=out, settings=settings, resume=True, rank=3)
    line = str(caught.value)
    for part in ("train.seed: 3 -> 4", "train.weight_decay: 0.01 -> 0.5", "method.rank: 8 -> 3", "electra"):
        assert part in line
    assert "method.dropout: 0.2 -> 0.0" in line
    assert "train.epochs" not in line
    assert "\n" not in line


@pytest.mark.parametrize("action", [leave, interrupt])
def test_a_comparison_goes_on(action, checkpoints, tiny_data, tmp_path):
    """In the middle of its third run; those that are finished stay as they are."""
    settings = {**SETTINGS, "train.checkpoint_seconds": 0, "method.lora.dropout": 0.2}
    fixed = {"methods": ["linear_probe", "lora"], "seeds": 2, "settings": settings}
    arguments = checkpoints["bert"], tiny_data["classification"].file
    whole = ts.compare(*arguments, out=tmp_path / "whole", **fixed)

    class Third(Listener):
        def step(self, progress, total):
            if "lora, seed 4" in self.notes:
                super().step(progress, total)

    with pytest.raises((SystemExit, Interrupted)):
        ts.compare(*arguments, out=tmp_path / "run", listener=Third(5, action), **fixed)
    done = tmp_path / "run" / "lora" / "seed-3" / "metrics.json"
    finished_at = done.stat().st_mtime_ns
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(SettingError, match=r"seeds: 2 -> 3"):
        ts.compare(*arguments, out=tmp_path / "run", resume=True, **{**fixed, "seeds": 3})
    listener = Third()
    resumed = ts.compare(*arguments, out=tmp_path / "run", listener=listener, resume=True, **fixed)
    assert listener.steps == list(range(5 if action is leave else 6, STEPS + 1))
    assert done.stat().st_mtime_ns == finished_at
    assert_same_files(tmp_path / "run", tmp_path / "whole")
    scores = [(row.method, row.mean, row.std, row.other_means) for row in whole.rows]
    assert [(row.method, row.mean, row.std, row.other_means) for row in resumed.rows] == scores


if __name__ == "__main__":
    method, model, data, out, step, seconds = sys.argv[1:]
    tune(method, model, data, Path(out), seconds=float(seconds), listener=Listener(int(step), die))
