"""Gradients of one step, cut in some way; under torchrun, those of two processes."""

import json
import sys
from pathlib import Path

import torch
from learners import make_drawn, make_learner
from safetensors.torch import save_file

from tunesmith.train.checkpoint import Progress
from tunesmith.train.parallel import Parallel, processes
from tunesmith.train.step import Stepper
from tunesmith.train.update import Update

COUNT = 12


class Keeps(torch.optim.SGD):
    """Updates nothing and keeps what it was given."""

    def __init__(self, named):
        super().__init__(list(named.values()), lr=0.0)
        self.named, self.kept = named, {}

    def step(self, closure=None):
        self.kept = {name: p.grad.clone() for name, p in self.named.items() if p.grad is not None}


class Work:
    """One step with fixed micro-batches."""

    def __init__(self, trainee, objective, batches):
        self.trainee, self.objective, self.batches = trainee, objective, batches

    def micro_batches(self, progress):
        return self.batches

    def describe(self, number=None):
        return "the only batch"

    def targets(self, batch):
        return self.objective.targets(batch)

    def losses(self, batch, *, phase, noise):
        return self.trainee(batch, phase)


def cuts(way):
    """Numbers of the samples of each micro-batch."""
    found, start = [], 0
    for count in way:
        found.append(list(range(start, start + count)))
        start += count
    return found


def gradients(name, way, *, dtype=torch.float64, parallel=None):
    """Gradients of all parameters by the loop's own step, without clipping."""
    parallel = parallel or Parallel()
    trainee = make_learner(name, dtype=dtype)
    objective = trainee.objective
    drawn = make_drawn(name)
    mine = [part for part in cuts(way) if parallel.world == 1 or (part[0] >= COUNT // 2) == bool(parallel.rank)]
    batches = [objective.prepare([drawn[i] for i in part]) for part in mine]
    module = parallel.wrap(trainee, [])
    named = dict(trainee.named_parameters())
    updates = []
    for phase in objective.phases:
        parameters = {key: p for key, p in named.items() if phase.trains(key)}
        updates.append(Update(phase.name, phase.terms, parameters, Keeps(parameters)))
    Stepper(
        work=Work(module, objective, batches),
        module=module,
        updates=updates,
        parallel=parallel,
        device=torch.device("cpu"),
        seed=0,
        learning_rate=0.0,
        max_grad_norm=None,
    ).step(Progress(), rate=lambda tokens: 1.0)
    return {f"{update.name}/{key}": g for update in updates for key, g in update.optimiser.kept.items()}


def main(job):
    """All learners and ways, written by the leading process."""
    with processes("ddp", device=torch.device("cpu")) as parallel:
        for name in job["names"]:
            for number, way in enumerate(job["ways"]):
                for dtype in (torch.float64, torch.float32):
                    found = gradients(name, way, dtype=dtype, parallel=parallel)
                    if parallel.leads:
                        save_file(found, Path(job["out"]) / f"{name}-{number}-{dtype}.safetensors")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
