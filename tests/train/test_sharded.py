"""Checkpoints in shards: the same bits for any number of processes, whole or absent, and no pickle.

This file is also the program of the processes that write them: ``python test_sharded.py JOB``, where the job is JSON:
folder, steps, fault.
"""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.base.choices import choose
from tunesmith.base.errors import CheckpointError, StorageError
from tunesmith.base.files import remove_parts, save_tensors
from tunesmith.train import sharded
from tunesmith.train.checkpoint import Checkpoints, Progress, _state
from tunesmith.train.parallel import Parallel, full, processes
from tunesmith.train.update import Update

OPTIMISERS = ("adamw", "adam", "lamb", "adafactor", "sgd", "muon")
CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


def learner(optimiser: str, parallel: Parallel) -> tuple[torch.nn.Module, list[Update]]:
    """Matrices and vectors that two or three processes cannot share evenly, one of them a single number."""
    torch.manual_seed(1)
    parts = {"hidden": torch.nn.Linear(5, 7), "even": torch.nn.Linear(7, 4), "head": torch.nn.Linear(4, 1)}
    net = torch.nn.Sequential(OrderedDict(parts))
    wrapped = parallel.wrap(net, [net[0]])
    parameters = dict(net.named_parameters())
    settings = {"name": optimiser, **({"precision": "fp32"} if optimiser == "muon" else {})}
    made = choose("optimiser", settings).build(parameters, learning_rate=0.1, weight_decay=0.01)
    return wrapped, [Update("train", {"loss": 1.0}, parameters, made)]


def state(updates: list[Update]) -> dict[str, torch.Tensor]:
    return {name: full(tensor).detach().clone() for name, (tensor, _) in _state(updates)}


def step(wrapped, updates):
    torch.manual_seed(2)
    wrapped(torch.randn(4, 5)).square().sum().backward()
    updates[0].optimiser.step()
    updates[0].optimiser.zero_grad()


def main(job: dict) -> None:
    """Load what there is and compare it with what should be, then do steps and save after each."""
    with processes("fsdp", device=CPU) as parallel:
        for optimiser in OPTIMISERS:
            folder = Path(job["folder"]) / optimiser
            wrapped, updates = learner(optimiser, parallel)
            progress = Checkpoints(folder, parallel).load(updates) or Progress()
            if progress.step:
                assert_state(updates, folder)
            parallel.barrier()
            for _ in range(job.get("steps", 0)):
                progress.step += 1
                step(wrapped, updates)
                if progress.step == 3 and parallel.rank == 1 and job.get("fault"):
                    sharded.HuggingFaceStorageWriter.write_data = FAULTS[job["fault"]]
                wanted = state(updates)
                try:
                    Checkpoints(folder, parallel).save(progress, updates)
                except StorageError as error:
                    folder.with_name(f"error.{parallel.rank}").write_text(str(error))
                    raise
                if parallel.leads:
                    save_tensors(folder.with_name(f"{optimiser}.safetensors"), wanted)


def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk(*ignored):
    raise OSError(errno.ENOSPC, "No space left on device")


FAULTS = {"die": die, "fill": fill_the_disk}


def assert_state(updates: list[Update], folder: Path) -> None:
    """Every bit of parameters and optimiser is what was saved."""
    wanted, got = load_file(folder.with_name(f"{folder.name}.safetensors")), state(updates)
    assert got.keys() == wanted.keys()
    assert sum(name.startswith("optimiser/") for name in got) >= 4
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


def launch(world: int, **job) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    command = [
        sys.executable,
        *several,
        __file__,
        json.dumps({k: str(v) if k == "folder" else v for k, v in job.items()}),
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def assert_launched(world: int, **job) -> None:
    done = launch(world, **job)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What two processes leave after two steps."""
    folder = tmp_path_factory.mktemp("written")
    assert_launched(2, folder=folder, steps=2)
    return folder


@pytest.fixture
def saved(written, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(written, tmp_path / "saved")


def load_alone(folder: Path) -> tuple[Progress | None, list[Update]]:
    _, updates = learner(folder.name, Parallel())
    return Checkpoints(folder).load(updates), updates


def test_what_is_written(written):
    """One file for each process, that holds its part only; the checkpoint before is gone."""
    for optimiser in OPTIMISERS:
        (last,) = (written / optimiser).iterdir()
        assert last.name == "last-2"
        shards = sorted(last.glob("*.safetensors"))
        assert sorted(path.name for path in last.iterdir()) == ["index.json", *(path.name for path in shards)]
        assert len(shards) == 2
        assert [tuple(load_file(shard)["parameter/hidden.weight"].shape) for shard in shards] == [(4, 5), (3, 5)]
        assert not [path for path in last.iterdir() if path.read_bytes()[:1] == pickle.PROTO]


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_reads_it(written, world):
    assert_launched(world, folder=written)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_one_process_reads_it_and_unpickles_nothing(written, optimiser, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a pickle is read")

    for place, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(place, name, refuse)
    progress, updates = load_alone(written / optimiser)
    assert progress == Progress(step=2)
    assert_state(updates, written / optimiser)


def test_two_processes_read_what_one_has_written(saved):
    for optimiser in OPTIMISERS:
        folder = saved / optimiser
        wrapped, updates = learner(optimiser, Parallel())
        progress = Checkpoints(folder).load(updates)
        progress.step += 1
        step(wrapped, updates)
        Checkpoints(folder).save(progress, updates)
        assert [path.name for path in folder.iterdir()] == ["last.safetensors"]
        save_tensors(saved / f"{optimiser}.safetensors", state(updates))
    assert_launched(2, folder=saved, steps=1)
    assert [path.name for path in (saved / "muon").iterdir()] == ["last-4"]
    assert_launched(2, folder=saved)


def test_a_process_that_dies_while_it_writes_leaves_the_checkpoint_before(saved):
    assert launch(2, folder=saved, steps=1, fault="die").returncode != 0
    folder = saved / OPTIMISERS[0]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".last-3.part", "last-2"]
    progress, updates = load_alone(folder)
    assert progress == Progress(step=2)
    assert_state(updates, folder)
    assert_launched(2, folder=saved, steps=1)  # what the dead left is in nobody's way
    remove_parts(saved)
    assert [path.name for path in folder.iterdir()] == ["last-3"]


def test_a_full_disk_is_one_line_in_every_process(saved):
    assert launch(2, folder=saved, steps=1, fault="fill").returncode != 0
    lines = [(saved / f"error.{rank}").read_text() for rank in (0, 1)]
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{saved / OPTIMISERS[0] / 'last-3'}: cannot write: the disk is full")
    assert load_alone(saved / OPTIMISERS[0])[0] == Progress(step=2)


def test_the_newer_of_two_counts(saved):
    """A process was killed when the new one was there, and the old one too."""
    folder = saved / "adamw"
    wrapped, updates = learner("adamw", Parallel())
    step(wrapped, updates)
    Checkpoints(saved / "other").save(Progress(step=1), updates)
    shutil.copy(saved / "other" / "last.safetensors", folder)
    assert load_alone(folder)[0] == Progress(step=2)
    Checkpoints(saved / "other").save(Progress(step=3), updates)
    shutil.copy(saved / "other" / "last.safetensors", folder)
    progress, again = load_alone(folder)
    assert progress == Progress(step=3)
    for name, tensor in state(updates).items():
        assert torch.equal(state(again)[name], tensor)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def scramble(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def double(path):
    shutil.copy(path, path.with_name("more.safetensors"))


@pytest.mark.parametrize("damage", [Path.unlink, cut, scramble, double])
def test_a_damaged_shard_is_one_line(saved, damage):
    damage(next((saved / "adamw" / "last-2").glob("shard-00002*")))
    with pytest.raises(CheckpointError, match=f"^{saved / 'adamw' / 'last-2'}") as caught:
        load_alone(saved / "adamw")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_run_is_refused(saved):
    _, updates = learner("adamw", Parallel())
    other = {"hidden.weight": torch.nn.Parameter(torch.zeros(5, 7)), **dict(list(updates[0].parameters.items())[1:])}
    changed = [Update("train", {"loss": 1.0}, other, updates[0].optimiser)]
    with pytest.raises(CheckpointError, match="damaged or of another run"):
        Checkpoints(saved / "adamw").load(changed)
    fewer = dict(list(updates[0].parameters.items())[1:])
    with pytest.raises(CheckpointError, match="damaged or of another run"):
        Checkpoints(saved / "adamw").load([Update("train", {"loss": 1.0}, fewer, updates[0].optimiser)])
    with pytest.raises(CheckpointError, match="damaged or of another run"):
        Checkpoints(saved / "adamw").load([Update("other", {"loss": 1.0}, updates[0].parameters, updates[0].optimiser)])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
