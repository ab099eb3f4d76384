"""What pretraining trains: a model with its objective, the micro-batches that it reads, its optimisers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from tunesmith.base.errors import SettingError
from tunesmith.base.moving import moved
from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.objectives import Batch, Objective
from tunesmith.recipes.ahead import Ahead, Parts
from tunesmith.recipes.corpus import Ready
from tunesmith.recipes.feed import Feed, Place
from tunesmith.recipes.listener import Listener
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.recipes.start import first_model, with_heads
from tunesmith.recipes.whereabouts import sequences_words
from tunesmith.text.batching import cut_by_tokens
from tunesmith.train.checkpoint import Progress
from tunesmith.train.loop import Plan
from tunesmith.train.parallel import Parallel, full
from tunesmith.train.precision import Machine
from tunesmith.train.update import Update


def make_learner(settings: PretrainSettings, ready: Ready, listener: Listener) -> tuple[Model, Objective]:
    """The model with the objective's head, and the objective."""
    settings.objective.check_input(settings.input)
    model = first_model(settings, ready.vocabulary, listener)
    _check_length(model, settings)
    model, objective = with_heads(model, settings, ready.vocabulary, listener)
    model.tokenizer = ready.tokenizer
    return model, objective


class Trainee(torch.nn.Module):
    """All that trains: the model, and the objective's further networks.

    Args:
        model: The model.
        objective: What it learns.
    """

    def __init__(self, model: Model, objective: Objective):
        super().__init__()
        self.model = model
        self.networks = torch.nn.ModuleDict(objective.networks)
        self.objective = objective

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Sums of the losses of a phase."""
        return self.objective.loss(self.model, batch, phase=phase)


def gathered(trainee: Trainee, make: Callable[[], Trainee], parallel: Parallel) -> Trainee | None:
    """What trains, whole again on the leading process's CPU; None in the others, which must call this too.

    Parameter by parameter: no device holds more than its shards and one of them.

    Args:
        trainee: What trains, in shards.
        make: Makes another one; its buffers are fixed.
        parallel: The processes.
    """
    whole = make() if parallel.leads else None
    into = {} if whole is None else dict(whole.named_parameters())
    if isinstance(trainee, FSDPModule):
        trainee.reshard()  # what is in no block stays whole behind a forward pass
    with torch.no_grad():
        for name, parameter in trainee.named_parameters():
            if whole is None:
                full(parameter)
            else:  # no name for what is gathered: it would live on beside the next one
                into[name].copy_(full(parameter))
    return whole


class Pretraining:
    """What the loop learns from: micro-batches of an objective.

    Args:
        trainee: What trains, as the engine has wrapped it.
        objective: What it learns.
        feed: Which sequences each step sees.
        plan: How long.
        parallel: The processes.
        machine: Where.
        max_tokens: Tokens of a micro-batch, at most.
        decode: Gives the text of token ids, for messages; None: sequences are only numbered.
        ahead: Whether the next step's micro-batches are made while one is computed: a CPU has no time to spare for it.
    """

    def __init__(
        self,
        trainee: torch.nn.Module,
        objective: Objective,
        feed: Feed,
        plan: Plan,
        parallel: Parallel,
        machine: Machine,
        max_tokens: int,
        decode: Callable[[Sequence[int]], str] | None = None,
        ahead: bool | None = None,
    ):
        self.trainee, self.objective, self.feed, self.plan = trainee, objective, feed, plan
        self.parallel, self.machine, self.max_tokens = parallel, machine, max_tokens
        self.decode = decode
        self.last: list[list[Place]] = []
        wanted = machine.device.type == "cuda" if ahead is None else ahead
        self.ahead = Ahead(self._make) if wanted else None

    def micro_batches(self, progress: Progress) -> list[Batch]:
        """This process's part of the step that comes."""
        parts = self.last = self._parts(progress)
        if self.ahead is None:
            return [self._prepared(part, self.machine.device) for part in parts]
        batches = [moved(batch, self.machine.device) for batch in self.ahead.take(parts)]
        tokens = progress.tokens + self.parallel.world * sum(batch.num_tokens for batch in batches)
        soon = Progress(step=progress.step + 1, tokens=tokens, seconds=progress.seconds, cursor=dict(progress.cursor))
        self.ahead.begin(self._parts(soon))
        return batches

    def describe(self, number: int | None = None) -> str:
        """Which sequences this process's part of the last step holds, or one of its micro-batches."""
        parts = self.last if number is None else [self.last[number]]
        return sequences_words([place for part in parts for place in part], self.feed, self.decode)

    def targets(self, batch: Batch) -> dict[str, int]:
        """Targets of each term."""
        return self.objective.targets(batch)

    def losses(self, batch: Batch, *, phase: str, noise: torch.Generator) -> dict[str, Tensor]:
        """Sums of the losses of a phase."""
        return self.trainee(batch.with_noise(noise), phase)

    def _parts(self, progress: Progress) -> list[list[Place]]:
        """Places of the step that comes; the cursor moves on."""
        return self._cut(self.parallel.share(self.feed.step(progress, self.plan.spent(progress))))

    def _prepared(self, part: Sequence[Place], device: torch.device) -> Batch:
        return self.objective.prepare([self.feed.draw(place) for place in part], device=device)

    def _make(self, parts: Parts) -> list[Batch]:
        """Micro-batches in the memory of the CPU, with the groups of attention."""
        batches = [self._prepared(part, torch.device("cpu")) for part in parts]
        for rows in (rows for batch in batches for rows in (batch.source, batch.target) if rows is not None):
            _ = rows.layout.groups  # cached there
        return batches

    def _cut(self, places: Sequence[Place]) -> list[list[Place]]:
        lengths = np.array([self.feed.samples(p.stage, p.epoch).lengths[p.number] for p in places], dtype=np.int64)
        cuts = cut_by_tokens(range(len(places)), lengths, max_tokens=self.max_tokens)
        return [[places[i] for i in part] for part in cuts]


def make_updates(trainee: Trainee, objective: Objective, settings: PretrainSettings) -> list[Update]:
    """The optimisers of a step's phases."""
    named = dict(trainee.named_parameters())
    updates = []
    for phase in objective.phases:
        parameters = {name: p for name, p in named.items() if phase.trains(name)}
        optimiser = settings.train.optimiser.build(
            parameters, learning_rate=settings.train.learning_rate, weight_decay=settings.train.weight_decay
        )
        updates.append(Update(phase.name, phase.terms, parameters, optimiser))
    return updates


def _check_length(model: Model, settings: PretrainSettings) -> None:
    """Refuse sequences that are longer than the model's positions."""
    for stack in model.stacks:
        if settings.data.max_tokens > stack.config.max_positions:
            raise SettingError(
                f"data.max_tokens: must be at most {stack.config.max_positions}, the model's positions, got "
                f"{settings.data.max_tokens}: lower it or set model.max_positions"
            )
