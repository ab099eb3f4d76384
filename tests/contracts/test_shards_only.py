"""Where processes hold shards, no device holds the whole model: neither before training nor behind it.

This file is also the program of the processes: ``python test_shards_only.py JOB``, where the job is JSON: recipe,
corpus, out, settings, seen.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_pretraining import recipe, write_corpus
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef

from tunesmith.recipes import pretrain as module
from tunesmith.recipes.learner import Trainee

pytestmark = pytest.mark.slow


class Watch:
    """What one process does with whole models.

    Attributes:
        moved: Times that all parameters were moved to the device at once.
        made: Models made.
        most: Numbers, at most, in the gathered tensors that exist at a time.
        largest: Numbers in the largest of them.
        total: Numbers in all parameters.
    """

    def __init__(self):
        self.moved = self.made = self.most = self.largest = self.total = 0
        self.gathered = []
        self.move, self.make, self.gather = Trainee.to, module.make_learner, DTensor.full_tensor
        Trainee.to = lambda trainee, *given: self.to(trainee, *given)
        module.make_learner = self.make_learner
        DTensor.full_tensor = lambda tensor: self.full_tensor(tensor)

    def to(self, trainee, *given):
        self.moved += 1
        return self.move(trainee, *given)

    def make_learner(self, *given):
        self.made += 1
        model, objective = self.make(*given)
        self.total = sum(parameter.numel() for parameter in model.parameters())
        return model, objective

    def full_tensor(self, tensor):
        found = self.gather(tensor)
        self.gathered = [(storage, count) for storage, count in self.gathered if not storage.expired()]
        self.gathered.append((StorageWeakRef(found.untyped_storage()), found.numel()))
        self.most = max(self.most, sum(count for _, count in self.gathered))
        self.largest = max(self.largest, found.numel())
        return found


def main(job: dict) -> None:
    """One process of a run."""
    watch, seen = Watch(), job.pop("seen")
    module.pretrain(**job)
    facts = {name: getattr(watch, name) for name in ("moved", "made", "most", "largest", "total")}
    Path(f"{seen}.{os.environ['RANK']}.json").write_text(json.dumps(facts))


def test_one_parameter_at_a_time(tmp_path):
    """And a second model is made by the leading process alone, to be saved."""
    job = {
        "recipe": str(recipe(tmp_path, "mlm")),
        "corpus": str(write_corpus(tmp_path / "corpus.txt")),
        "out": str(tmp_path / "run"),
        "settings": {"train.engine": "fsdp", "train.max_steps": 2},
        "seen": str(tmp_path / "seen"),
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, __file__, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"seen.{rank}.json").read_text())
        assert seen["moved"] == 0
        assert 1000 < seen["largest"] <= seen["most"] <= 2 * seen["largest"]  # the one before may not be gone yet
        assert 2 * seen["largest"] < seen["total"]
        assert seen["made"] == (2 if rank == 0 else 1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
