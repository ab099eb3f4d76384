"""A pretraining run that was stopped and resumed ends with the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_pretraining import CASES, STEPS, Listener, Probe, assert_same_runs, interrupt, leave, recipe, write_corpus

from tunesmith.base.errors import SettingError, StorageError
from tunesmith.recipes import pretrain as module
from tunesmith.recipes.load import load
from tunesmith.train.loop import Interrupted
from tunesmith.train.step import Stepper, TrainingError

FAST = ("mlm", "gdes", "length", "muon")
SCRIPT = Path(__file__).with_name("tiny_pretraining.py")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a corpus and a recipe for each case."""
    folder = tmp_path_factory.mktemp("desk")
    write_corpus(folder / "corpus.txt")
    for case in CASES:
        recipe(folder, case)
    return folder


@pytest.fixture(autouse=True)
def _probed(monkeypatch):
    monkeypatch.setattr(module, "Feed", Probe)


def run(desk, case, out, listener=None, *, settings=None, **more):
    """Steps that the listener heard, and what was drawn."""
    listener = listener or Listener()
    Probe.seen = []
    recipe, corpus = str(desk / f"{case}.toml"), desk / "corpus.txt"
    module.pretrain(recipe, corpus, out=out, settings=settings, listener=listener, **more)
    return listener.steps, Probe.seen


@pytest.fixture(scope="module")
def undisturbed(desk, tmp_path_factory):
    """Finished runs by case, with what was drawn: each made once."""
    made = {}

    def make(case):
        if case not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            steps, places = run(desk, case, out)
            assert steps == list(range(1, STEPS + 1))
            assert {place[0] for place in places} == set(range(STEPS))
            made[case] = out, places
        return made[case]

    return make


def stopped_and_resumed(desk, case, out, *, step, action):
    """What was drawn by the steps that count."""
    first = Listener(step, action)
    with pytest.raises((SystemExit, Interrupted)):
        run(desk, case, out, first)
    before = Probe.seen
    goes_on_at = step + (action is interrupt)
    steps, places = run(desk, case, out, resume=True)
    assert steps == list(range(goes_on_at, STEPS + 1))
    return [place for place in before if place[0] < goes_on_at - 1] + places


CHOSEN = [pytest.param(case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", CHOSEN)
def test_left_and_resumed(case, desk, tmp_path, undisturbed):
    want, places = undisturbed(case)
    assert stopped_and_resumed(desk, case, tmp_path / "run", step=4, action=leave) == places
    assert_same_runs(tmp_path / "run", want)


@pytest.mark.slow
@pytest.mark.parametrize("action", [leave, interrupt])
@pytest.mark.parametrize("step", [1, 2, 3, 5, STEPS])
@pytest.mark.parametrize("case", ["mlm", "rtd", "gdes", "length", "batch"])
def test_left_at_any_step(case, step, action, desk, tmp_path, undisturbed):
    if action is interrupt and step == STEPS:
        pytest.skip("a run whose last step is done ends")
    want, places = undisturbed(case)
    assert stopped_and_resumed(desk, case, tmp_path / "run", step=step, action=action) == places
    assert_same_runs(tmp_path / "run", want)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_twice_and_resumed(case, desk, tmp_path, undisturbed):
    job = {"recipe": str(desk / f"{case}.toml"), "corpus": str(desk / "corpus.txt"), "out": str(tmp_path / "run")}
    for step in (2, 5):
        command = json.dumps(job | {"resume": True, "action": "die", "step": step})
        assert subprocess.run([sys.executable, SCRIPT, command], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "metrics.json").exists()
    steps, _ = run(desk, case, tmp_path / "run", resume=True)
    assert steps == [5, 6]
    assert_same_runs(tmp_path / "run", undisturbed(case)[0])


def test_interrupted_before_the_first_checkpoint(desk, tmp_path, undisturbed):
    """There is nothing to resume, so nothing is left; the command makes the whole run."""
    with pytest.raises(SystemExit):
        run(desk, "mlm", tmp_path / "run", Listener(1, leave))
    assert not (tmp_path / "run").exists()
    steps, places = run(desk, "mlm", tmp_path / "run", resume=True)
    assert steps == list(range(1, STEPS + 1))
    assert places == undisturbed("mlm")[1]
    assert_same_runs(tmp_path / "run", undisturbed("mlm")[0])


def test_a_run_that_stopped_has_its_curves(desk, tmp_path, undisturbed):
    """Written at each look; metrics.json alone says that a run is whole."""
    out = tmp_path / "run"
    with pytest.raises(SystemExit):
        run(desk, "mlm", out, Listener(5, leave))
    curve = json.loads((out / "curve.json").read_text())
    assert [point["step"] for point in curve] == [2, 4]
    page = (out / "report.html").read_text()
    assert "unfinished: 67 % of the budget is spent" in page
    assert not (out / "metrics.json").exists()
    with pytest.raises(StorageError, match="already holds"):
        run(desk, "mlm", out)
    run(desk, "mlm", out, resume=True)
    assert_same_runs(out, undisturbed("mlm")[0])
    assert "unfinished" not in (out / "report.html").read_text()
    run(desk, "mlm", out, overwrite=True, settings={"train.max_steps": 1})
    assert [point["step"] for point in json.loads((out / "curve.json").read_text())] == [1]


@pytest.fixture
def diverging(monkeypatch):
    """Makes the fourth step of a run come out as no number."""

    def spoil(stepper, value, what, *, step, **more):
        check(stepper, float("nan") if (what, step) == ("loss", 4) else value, what, step=step, **more)

    check = Stepper.check
    monkeypatch.setattr(Stepper, "check", spoil)
    return monkeypatch


def test_a_run_that_diverged_has_its_curves(desk, tmp_path, diverging):
    """Nothing of a run is kept that has no checkpoint; this one has that of its first look."""
    out = tmp_path / "run"
    with pytest.raises(TrainingError):
        run(desk, "mlm", out)
    assert [point["step"] for point in json.loads((out / "curve.json").read_text())] == [2]
    assert (out / "report.html").exists()


@pytest.mark.parametrize("case", ["mlm", "gdes"])
def test_what_was_good_before_a_run_diverged_is_a_model(case, desk, tmp_path, diverging):
    """That of its last checkpoint, the generator's included; a resumed run that ends well has no need of it."""
    out, settings = tmp_path / "run", {"train.checkpoint_seconds": 1e9}
    for resume in (False, True):
        with pytest.raises(TrainingError) as caught:
            run(desk, case, out, resume=resume, settings=settings)
        assert f"from step 2, the last good one, with model.checkpoint={out / 'last_good'}" in str(caught.value)
        assert "\n" not in str(caught.value)
    good = load(out / "last_good")
    assert good.tokenizer is not None
    stored = load_file(out / "checkpoint" / "last.safetensors")
    head = next(name for name in good.state_dict() if name.startswith("head."))
    for name in (head, next(name for name in good.state_dict() if "blocks.1" in name)):
        assert torch.equal(good.state_dict()[name], stored[f"parameter/model.{name}"])
    listener = Listener()
    more = {"model.checkpoint": str(out / "last_good"), "train.max_steps": 2}
    run(desk, case, tmp_path / "next", listener, settings=more)
    assert "fresh" not in "".join(listener.notes)
    diverging.undo()
    run(desk, case, out, resume=True, settings=settings)
    assert (out / "metrics.json").exists()
    assert not (out / "last_good").exists()


def test_nothing_good_is_promised_where_nothing_is(desk, tmp_path, diverging):
    """A run that diverged before its first checkpoint leaves nothing behind; nor does one without a folder."""
    for out, settings in [(tmp_path / "run", {"train.evaluations": 1, "train.checkpoint_seconds": 1e9}), (None, {})]:
        with pytest.raises(TrainingError) as caught:
            run(desk, "mlm", out, settings=settings)
        assert "model.checkpoint" not in str(caught.value)
    assert not list((tmp_path / "run").glob("*"))


def test_other_settings_are_refused(desk, undisturbed):
    out, _ = undisturbed("mlm")
    changed = {"train.seed": 4, "data.grouping": "length", "objective.rate": 0.3}
    with pytest.raises(SettingError) as caught:
        run(desk, "mlm", out, settings=changed, resume=True)
    line = str(caught.value)
    for part in ("train.seed: 3 -> 4", "data.grouping: none -> length", "objective.rate: 0.15 -> 0.3"):
        assert part in line
    assert "\n" not in line
    assert "train.max_steps" not in line
    with pytest.raises(SettingError, match="train.optimiser.name: adamw -> muon"):
        run(desk, "muon", out, resume=True)


def test_a_finished_run_is_left_alone(desk, undisturbed):
    out, _ = undisturbed("mlm")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    listener = Listener()
    assert run(desk, "mlm", out, listener, resume=True) == ([], [])
    assert "already finished" in listener.notes[-1]
    with pytest.raises(StorageError, match="--resume"):
        run(desk, "mlm", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_overwriting(desk, tmp_path, undisturbed):
    """Another run takes the place of a finished one; one that fails at once leaves it."""
    out = tmp_path / "run"
    run(desk, "mlm", out, settings={"train.seed": 8, "train.max_steps": 2})
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit):
        run(desk, "mlm", out, Listener(1, leave), overwrite=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    run(desk, "mlm", out, overwrite=True)
    assert_same_runs(out, undisturbed("mlm")[0])


def test_killed_while_tidying_up(desk, tmp_path, undisturbed, monkeypatch):
    """The last thing a run does is to delete its checkpoint: the next command does it then."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "remove_quietly", lambda folder: leave())
        with pytest.raises(SystemExit):
            run(desk, "mlm", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint").exists()
    assert run(desk, "mlm", tmp_path / "run", resume=True) == ([], [])
    assert_same_runs(tmp_path / "run", undisturbed("mlm")[0])


def test_tokens_are_made_once(desk, tmp_path, undisturbed, monkeypatch):
    """The cache is keyed by what the tokens depend on, however many processes make them."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    run(desk, "mlm", tmp_path / "one", settings={"data.workers": 1})
    files = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    made = {path: path.stat().st_mtime_ns for path in files}
    whole = undisturbed("mlm")[0]
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    changed = {"data.short_tokens": 12, "data.grouping": "length", "tokenizer": str(whole)}
    run(desk, "mlm", tmp_path / "two", settings=changed)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()} == made


@pytest.mark.slow
@pytest.mark.parametrize("case", ["rtd", "gdes"])
def test_the_generator_is_compared(case, undisturbed):
    """So that the comparison of files says something about both networks."""
    out, _ = undisturbed(case)
    assert (out / "generator" / "model.safetensors").is_file()
    load(out / "generator")


def launch(world: int, **job) -> None:
    """Run a job in one process, or in several under torchrun."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
    command = [sys.executable, *several, str(SCRIPT), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning: " not in done.stderr, done.stderr[-3000:]


def places_of(folder: Path, world: int) -> list:
    """Which sequences each step has seen, over all processes."""
    ranks = [json.loads((folder / f"places.{rank}.json").read_text()) for rank in range(world)]
    assert all(ranks)
    return sorted(map(tuple, (place for rank in ranks for place in rank)))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlm", "length", "batch"])
def test_one_two_one_processes(case, desk, tmp_path, undisturbed):
    """The order of samples does not depend on how many processes there are, from step to step."""
    job = {"recipe": str(desk / f"{case}.toml"), "corpus": str(desk / "corpus.txt"), "out": str(tmp_path / "run")}
    seen = []
    for world, step in ((1, 2), (2, 4), (1, None)):
        stop = {} if step is None else {"action": "interrupt", "step": step}
        launch(world, **job, **stop, resume=True, places=str(tmp_path / "places"))
        seen += places_of(tmp_path, world)
    assert seen == sorted(map(tuple, undisturbed(case)[1]))
    assert load(tmp_path / "run") is not None


@pytest.mark.slow
def test_two_processes_without_a_folder(desk, tmp_path, monkeypatch):
    """They share a temporary one, which goes in the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    launch(2, recipe=str(desk / "mlm.toml"), corpus=str(desk / "corpus.txt"), out=None)
    assert not list(tmp_path.glob("tunesmith-*"))


SEVERAL = {  # without dropout, whose streams are keyed by process
    "mlm": {},
    "nsp": {},
    "rtd": {},
    "gdes": {},
    "mixture": {},
    "span_corruption": {},
    "lamb": {},
    "adafactor": {},
    "sgd": {},
    "muon": {"train.optimiser.precision": "fp32"},
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", SEVERAL)
def test_two_processes_end_as_one(case, engine, desk, tmp_path):
    """Five samples on one side and four on the other, cut into micro-batches of other numbers."""
    settings = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.batch_size": 9, "train.max_steps": 3}
    settings |= {"train.micro_batch_tokens": 40, "train.learning_rate": 1e-3, **SEVERAL[case]}
    job = {"recipe": str(desk / f"{case}.toml"), "corpus": str(desk / "corpus.txt")}
    run(desk, case, tmp_path / "one", settings=settings)
    launch(2, **job, out=str(tmp_path / "two"), settings={**settings, "train.engine": engine})
    assert_close_runs(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_three_processes_end_bit_identical(engine, desk, tmp_path):
    """Of three gradients the sum depends on which are added first; dropout is on."""
    settings = {"train.engine": engine, "train.learning_rate": 1e-3, "train.batch_size": 9}
    job = {"recipe": str(desk / "mlm.toml"), "corpus": str(desk / "corpus.txt"), "settings": settings}
    launch(3, **job, out=str(tmp_path / "whole"))
    launch(3, **job, out=str(tmp_path / "two"), action="interrupt", step=2)
    launch(3, **job, out=str(tmp_path / "two"), resume=True)
    whole, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "two"))
    assert [name for name in whole if not torch.equal(whole[name], two[name])] == []


def assert_close_runs(got: Path, want: Path) -> None:
    files = sorted(path.relative_to(want) for path in want.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(got) for path in got.rglob("*.safetensors"))
    for file in files:
        tensors, wanted = load_file(got / file), load_file(want / file)
        assert tensors.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(
                tensors[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: name + text
            )
    load(got)


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(2, 2, 1), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("case", ["mlm", "gdes", "adafactor", "muon"])
def test_shards_are_resumed(case, worlds, desk, tmp_path):
    """Stopped in step 2 on two processes that hold shards, and resumed on other numbers, as one with whole ones."""
    settings = {
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
        "train.engine": "fsdp",
        "train.learning_rate": 1e-3,
        **SEVERAL.get(case, {}),
    }
    job = {"recipe": str(desk / f"{case}.toml"), "corpus": str(desk / "corpus.txt"), "settings": settings}
    _, places = run(desk, case, tmp_path / "one", settings=settings)
    seen = []
    for world, step in zip(worlds, (2, 4, None), strict=True):
        stop = {} if step is None else {"action": "interrupt", "step": step}
        launch(world, **job, **stop, out=str(tmp_path / "two"), resume=True, places=str(tmp_path / "places"))
        seen += places_of(tmp_path, world)
        left = [path.name for path in (tmp_path / "two").glob("checkpoint/*")]
        assert left == ([] if step is None else ["last.safetensors" if world == 1 else f"last-{step}"])
    assert seen == sorted(map(tuple, places))
    assert_close_runs(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_finished_last_step_is_resumed_by_two(desk, tmp_path, undisturbed, monkeypatch):
    """All that is left is to save; nobody trains anew because the checkpoint has gone."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", lambda *rest: leave())
        with pytest.raises(SystemExit):
            run(desk, "mlm", tmp_path / "run")
    job = {"recipe": str(desk / "mlm.toml"), "corpus": str(desk / "corpus.txt"), "out": str(tmp_path / "run")}
    launch(2, **job, resume=True)
    assert_same_runs(tmp_path / "run", undisturbed("mlm")[0])
