"""Curves of a run: every step once, also when it was killed; refused in one line where the extra is absent."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pretraining
from tiny_pretraining import STEPS, Listener, interrupt, leave, recipe, write_corpus

import tunesmith as ts
from tunesmith.base.errors import SettingError
from tunesmith.recipes.pretrain import pretrain
from tunesmith.recipes.tracking import numbers, tracked
from tunesmith.train.checkpoint import Progress
from tunesmith.train.track import TrackConfig

SCRIPT = Path(tiny_pretraining.__file__)
INSTALLED = importlib.util.find_spec("tensorboard") is not None


class NotebookConfig(TrackConfig):
    """A track that keeps what it gets."""

    def check(self):
        pass

    def open(self, run, *, step):
        PAGES.append((run.name, step, {}))
        return Page()


class Page:
    def write(self, step, values):
        PAGES[-1][2][step] = dict(values)

    def close(self):
        PAGES.append("closed")


PAGES: list = []


@pytest.fixture(autouse=True)
def _blank():
    PAGES.clear()


def test_the_numbers_of_a_step():
    progress = Progress(step=3, seconds=2.0, tokens=100, last_loss=1.5, last_rate=0.01, last_norms={"train": 0.5})
    progress.last_terms = {"lm": 1.5}
    want = {"train/loss": 1.5, "train/learning_rate": 0.01, "train/gradient_norm": 0.5, "train/tokens_per_second": 50.0}
    assert numbers(progress) == want
    progress.last_terms = {"lm": 1.0, "rtd": 0.01}
    progress.last_norms = {"generator": 0.5, "discriminator": 0.25}
    progress.curve = [{"step": 3, "dev_loss": 2.0, "dev_metric": -2.0}]
    del want["train/gradient_norm"]
    want |= {"train/lm_loss": 1.0, "train/rtd_loss": 0.01, "dev/loss": 2.0}
    want |= {"train/gradient_norm_generator": 0.5, "train/gradient_norm_discriminator": 0.25}
    assert numbers(progress) == want
    progress.curve = [{"step": 3, "dev_loss": None, "dev_metric": 0.75}]
    assert numbers(progress)["dev/metric"] == 0.75
    progress.step = 4
    assert not [name for name in numbers(progress) if name.startswith("dev/")]


def test_a_listener_hears_what_is_tracked(tmp_path):
    listener = Listener()
    with tracked(listener, NotebookConfig(), tmp_path / "run") as hearing:
        assert PAGES == []  # nothing is opened for a run that makes no step
        hearing.note("a note")
        hearing.stage("a stage")
        for step in (8, 9):
            hearing.step(Progress(step=step), 0.5)
    assert (listener.notes, listener.steps) == (["a note", "a stage"], [8, 9])
    assert [PAGES[0][:2], list(PAGES[0][2]), PAGES[1]] == [("run", 8), [8, 9], "closed"]


def test_what_fails_closes_the_track(tmp_path):
    def fail():
        with tracked(Listener(1, leave), NotebookConfig(), tmp_path / "run") as hearing:
            hearing.step(Progress(step=1), 0.5)

    with pytest.raises(SystemExit):
        fail()
    assert PAGES[-1] == "closed"
    assert list(PAGES[0][2]) == [1]


def test_tuning_is_tracked(checkpoints, tiny_data, tmp_path):
    settings = {
        "train.max_steps": 4,
        "train.evaluations": 2,
        "train.precision": "fp32",
        "train.track": NotebookConfig(),
    }
    ts.tune(
        checkpoints["bert"], tiny_data["classification"].file, method="bitfit", out=tmp_path / "run", settings=settings
    )
    (_, first, written), closed = PAGES
    assert (first, sorted(written), closed) == (1, [1, 2, 3, 4], "closed")
    assert {step for step, values in written.items() if "dev/metric" in values} == {2, 4}
    for values in written.values():
        assert values["train/gradient_norm"] > 0
        assert values["train/loss"] > 0


def test_without_the_extra_nothing_is_begun(checkpoints, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings, line = {"train.track": "tensorboard"}, r"^train\.track: .* pip install 'tunesmith\[track\]'$"
    with pytest.raises(SettingError, match=line):
        pretrain("bert", tmp_path / "no corpus", out=tmp_path / "run", settings=settings)
    with pytest.raises(SettingError, match=line):
        ts.tune(checkpoints["bert"], tiny_data["pair"].file, out=tmp_path / "run", settings=settings)
    with pytest.raises(SettingError, match=line):
        ts.compare(
            checkpoints["bert"], tiny_data["pair"].file, methods=["lora"], out=tmp_path / "run", settings=settings
        )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    write_corpus(folder / "corpus.txt")
    recipe(folder, "nsp")
    return folder


def run(desk, out, listener=None, *, more=None, **options):
    settings = {"train.track": {"name": "tensorboard", **(more or {})}}
    source = str(desk / "nsp.toml"), desk / "corpus.txt"
    pretrain(*source, out=out, settings=settings, listener=listener or Listener(), **options)


def curves(folder):
    """Points of each curve, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(point.step, point.value) for point in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.mark.skipif(not INSTALLED, reason="needs the extra `track`")
def test_a_resumed_run_goes_on_with_its_curves(desk, tmp_path):
    """Killed in step 4, whose checkpoint is that of step 3, and interrupted behind step 5."""
    job = {"recipe": str(desk / "nsp.toml"), "corpus": str(desk / "corpus.txt"), "out": str(tmp_path / "run")}
    job |= {"settings": {"train.track": {"name": "tensorboard"}}, "action": "die", "step": 4}
    assert subprocess.run([sys.executable, SCRIPT, json.dumps(job)], check=False).returncode == -signal.SIGKILL
    assert [step for step, _ in curves(tmp_path / "run" / "tensorboard")["train/loss"]] == [1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        run(desk, tmp_path / "run", Listener(5, interrupt), resume=True)
    run(desk, tmp_path / "run", resume=True)
    run(desk, tmp_path / "whole")
    got, want = curves(tmp_path / "run" / "tensorboard"), curves(tmp_path / "whole" / "tensorboard")
    assert {name: [step for step, _ in points] for name, points in got.items()} == {
        name: list(range(1, STEPS + 1)) if name != "dev/loss" else [2, 4, 6]
        for name in (
            *("train/loss", "train/lm_loss", "train/nsp_loss", "train/learning_rate", "train/gradient_norm"),
            *("train/tokens_per_second", "dev/loss"),
        )
    }
    del got["train/tokens_per_second"], want["train/tokens_per_second"]
    assert got == want


@pytest.mark.skipif(not INSTALLED, reason="needs the extra `track`")
def test_points_further_apart(desk, tmp_path):
    run(desk, tmp_path / "run", more={"every_steps": 4})
    found = curves(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in found["train/loss"]] == [4]
    assert [step for step, _ in found["dev/loss"]] == [2, 4, 6]
