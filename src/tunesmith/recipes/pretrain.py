"""Pretrain a model on raw text: corpus, tokenizer, sequences, objective, loop, checkpoint that transformers loads."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.base.errors import SettingError, UserError
from tunesmith.base.files import remove_quietly, write_atomic, write_json
from tunesmith.base.shapes import Tensor
from tunesmith.models._checkpoint import save
from tunesmith.models._fresh import fresh_model
from tunesmith.models.model import Model
from tunesmith.objectives import Batch, Objective
from tunesmith.objectives._pair import PairObjective
from tunesmith.recipes.corpus import Ready, make_ready
from tunesmith.recipes.feed import Feed, Place
from tunesmith.recipes.listener import Listener, Silent
from tunesmith.recipes.load import load
from tunesmith.recipes.output import METRICS, OutputFolder
from tunesmith.recipes.pretrain_settings import PretrainSettings, pretrain_settings
from tunesmith.recipes.settings import nested
from tunesmith.recipes.validation import Losses, Validation
from tunesmith.report.training import render_training
from tunesmith.text.batching import cut_by_tokens
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.loop import Evaluation, Plan, train
from tunesmith.train.parallel import Parallel, full, processes
from tunesmith.train.precision import (
    Machine,
    choose_machine,
    peak_memory_bytes,
    reset_peak_memory,
    reuse_memory,
)
from tunesmith.train.step import Stepper, Update

_FINISHED, _READY, _FAILED = 0.0, 1.0, 2.0  # what the leading process tells the others


def pretrain(
    recipe: str,
    corpus: str | Path,
    *,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Model:
    """Pretrain a model from scratch and give it back.

    Args:
        recipe: Name of a recipe (``bert`` is ``bert_mini``), or a TOML file.
        corpus: Text, JSON Lines or Parquet file, folder of such files, or hub id.
        out: Folder of the run; nothing is kept if None.
        settings: Deep settings, such as ``{"train.minutes": 3}``.
        resume: Go on with what stands in ``out``.
        overwrite: Delete what stands in ``out``.
        listener: Hears of the progress.

    Raises:
        UserError: Something that the caller can mend; one line says what.
    """
    resolved = pretrain_settings(recipe, nested(settings or {}))
    if out is not None:
        return run_pretrain(recipe, corpus, Path(out), resolved, resume=resume, overwrite=overwrite, listener=listener)
    temporary = Path(tempfile.mkdtemp(prefix="tunesmith-"))
    try:
        return run_pretrain(recipe, corpus, temporary / "run", resolved, listener=listener)
    finally:
        remove_quietly(temporary)


def run_pretrain(
    recipe: str,
    corpus: str | Path,
    out: Path,
    settings: PretrainSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Model:
    """Pretrain with resolved settings; see `pretrain`."""
    listener = listener or Silent()
    machine = choose_machine(settings.train.device, settings.train.precision)
    record = {"verb": "pretrain", "recipe": recipe, "source": str(corpus), **settings.model_dump(mode="json")}
    with processes(settings.train.engine, device=machine.device) as parallel:
        _check_processes(settings, parallel)
        if not parallel.leads:  # the leading process makes the folder, the tokenizer and the shards ready
            said = parallel.agreed(_READY, device=machine.device)
            if said == _FAILED:
                raise UserError(f"{out}: the leading process could not begin, and says why")
            if said == _READY:
                _learn(make_ready(corpus, out, settings, Silent()), out, settings, machine, parallel, Silent())
            return load(out)
        told = False
        try:
            with OutputFolder(out, record, resume=resume, overwrite=overwrite) as finished:
                if finished:
                    told = True
                    listener.note(f"{out}: already finished")
                    parallel.agreed(_FINISHED, device=machine.device)
                else:
                    reset_peak_memory(machine.device)
                    ready = make_ready(corpus, out, settings, listener)
                    told = True
                    parallel.agreed(_READY, device=machine.device)
                    _learn(ready, out, settings, machine, parallel, listener)
        except Exception:
            if not told:  # the others wait, and would end with a broken connection
                parallel.agreed(_FAILED, device=machine.device)
            raise
        return load(out)


def _learn(
    ready: Ready, out: Path, settings: PretrainSettings, machine: Machine, parallel: Parallel, listener: Listener
) -> None:
    """The run itself, in a folder that is ours."""
    model, objective = make_learner(settings, ready, listener)
    listener.note(f"computing in {_name(machine.dtype)} on {machine.device.type}: {machine.reason}")
    reuse_memory()
    trainee = Trainee(model, objective).to(machine.device)
    total = sum(p.numel() for p in trainee.parameters())
    feed = Feed(ready.train, ready.vocabulary.frame, settings)
    plan = make_plan(settings, feed)
    wrapped = parallel.wrap(trainee, [block for stack in model.stacks for block in stack.blocks])
    updates = make_updates(trainee, objective, settings)
    work = Pretraining(wrapped, objective, feed, plan, parallel, machine, settings.train.micro_batch_tokens)
    stepper = Stepper(
        work=work,
        module=wrapped,
        updates=updates,
        parallel=parallel,
        device=machine.device,
        seed=settings.train.seed,
        learning_rate=settings.train.learning_rate,
        max_grad_norm=settings.train.max_grad_norm,
    )
    validation = Validation(ready.dev, ready.vocabulary.frame, objective, settings, machine)
    listener.note(
        f"{settings.objective.choice_name()} on {total / 1e6:.1f} M parameters, {ready.train.num_tokens / 1e6:.2f} M "
        f"tokens, {len(feed.samples(1, 0))} sequences an epoch"
    )

    def evaluate() -> Evaluation:
        losses = validation.losses(wrapped)
        return Evaluation(-losses.total, losses.total)

    model.compute_dtype = machine.dtype
    trainee.train()
    progress = train(
        stepper,
        plan,
        evaluate=evaluate,
        checkpoints=Checkpoints(out / "checkpoint", writes=parallel.leads),
        report=lambda progress: listener.step(progress, plan.spent(progress)),
    )
    if parallel.engine == "fsdp" and parallel.world > 1:
        whole = {name: full(parameter).detach() for name, parameter in trainee.named_parameters()}
        model, objective = make_learner(settings, ready, Silent())
        trainee = Trainee(model, objective).to(machine.device)
        trainee.load_state_dict(whole, strict=False)  # its buffers are fixed
    model.compute_dtype = None
    objective.finish(model)
    if parallel.leads:
        listener.stage("evaluating")
        _finish(out, trainee, objective, validation.losses(trainee), progress, settings, machine, ready)
    parallel.barrier()


def make_learner(settings: PretrainSettings, ready: Ready, listener: Listener) -> tuple[Model, Objective]:
    """A fresh model with the objective's head, and the objective."""
    seed = settings.train.seed
    changes = settings.model.changes()
    if changes["max_positions"] is None:
        changes.pop("max_positions")
    model, fault = fresh_model(settings.model.preset, changes=changes, vocabulary=ready.vocabulary, seed=seed)
    if fault is not None:
        listener.note(f"saved under our own names, as transformers cannot hold this model: {fault}")
    _check_length(model, settings)
    head = settings.objective.head(model)
    if head is not None:
        model = model.with_head(head, seed=seed)
    model.tokenizer = ready.tokenizer
    longest = settings.data.max_tokens
    objective = settings.objective.build(model, ready.vocabulary, max_tokens=longest, seed=seed)
    negatives = settings.input.model_dump().get("negatives")
    if isinstance(objective, PairObjective) and negatives is not None:
        objective.check_input(negatives)
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
    ):
        self.trainee, self.objective, self.feed, self.plan = trainee, objective, feed, plan
        self.parallel, self.machine, self.max_tokens = parallel, machine, max_tokens

    def micro_batches(self, progress: Progress) -> list[Batch]:
        """This process's part of the step that comes."""
        places = self.feed.step(progress, self.plan.spent(progress))
        mine = places[self.parallel.rank :: self.parallel.world]
        return [
            self.objective.prepare([self.feed.draw(place) for place in part], device=self.machine.device)
            for part in self._cut(mine)
        ]

    def targets(self, batch: Batch) -> dict[str, int]:
        """Targets of each term."""
        return self.objective.targets(batch)

    def losses(self, batch: Batch, *, phase: str, noise: torch.Generator) -> dict[str, Tensor]:
        """Sums of the losses of a phase."""
        return self.trainee(batch.with_noise(noise), phase)

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


def make_plan(settings: PretrainSettings, feed: Feed) -> Plan:
    """How long to train, and when to look."""
    wanted = settings.train
    steps = wanted.max_steps
    if wanted.epochs is not None:
        of_epochs = max(1, math.ceil(wanted.epochs * len(feed.samples(1, 0)) / wanted.batch_size))
        steps = of_epochs if steps is None else min(steps, of_epochs)
    return Plan(
        steps=steps,
        tokens=wanted.tokens,
        minutes=wanted.minutes,
        schedule=wanted.schedule,
        warmup=wanted.warmup,
        evaluations=wanted.evaluations,
        patience=wanted.patience,
        checkpoint_seconds=wanted.checkpoint_seconds,
        keeps="last",
    )


def _finish(
    out: Path,
    trainee: "Trainee",
    objective: Objective,
    losses: Losses,
    progress: Progress,
    settings: PretrainSettings,
    machine: Machine,
    ready: Ready,
) -> None:
    """Save, and write the report and the metrics (last: they say that the run is whole)."""
    model = trainee.model.eval().cpu()
    save(model, out)
    for name, network in objective.networks.items():
        if isinstance(network, Model):
            save(network.eval().cpu(), out / name)
    seconds = max(progress.seconds, 1e-9)
    metrics = {
        **_dev_metrics(losses, ready, settings),
        "steps": progress.step,
        "examples_per_second": progress.examples / seconds,
        "tokens_per_second": progress.tokens / seconds,
        "tokens": progress.tokens,
        "train_seconds": progress.seconds,
        "peak_memory_bytes": peak_memory_bytes(machine.device),
        "trainable_parameters": sum(p.numel() for p in trainee.parameters()),
        "kind": _kind(model),
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "saved_bytes": sum(
            path.stat().st_size
            for path in out.rglob("*.safetensors")
            if path.relative_to(out).parts[0] not in ("checkpoint", ".before")  # what --overwrite replaces
        ),
        "precision": _name(machine.dtype),
    }
    write_atomic(out / "curve.json", json.dumps(progress.curve))
    write_atomic(out / "report.html", render_training(progress.curve, metrics, settings.model_dump(mode="json")))
    write_json(out / METRICS, metrics)
    remove_quietly(out / "checkpoint")


def _dev_metrics(losses: Losses, ready: Ready, settings: PretrainSettings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dev": {"loss": losses.total, **{f"{term}_loss": value for term, value in losses.means.items()}},
        "metric": "loss",
        "validation_loss": losses.total,
        "constant_loss": losses.constant_total,
        "constant_losses": dict(losses.constants),
    }
    if "lm" in losses.means:
        found["dev"]["perplexity"] = math.exp(min(losses.means["lm"], 700.0))
    if settings.objective.choice_name() == "clm" and ready.dev.num_bytes:
        found["dev"]["bits_per_byte"] = losses.means["lm"] / math.log(2) * ready.dev.num_tokens / ready.dev.num_bytes
    return found


def _check_processes(settings: PretrainSettings, parallel: Parallel) -> None:
    """Refuse steps with fewer sequences than processes: some would have nothing to do."""
    least = min(settings.train.batch_size, settings.train.batch_start or settings.train.batch_size)
    if least < parallel.world:
        raise SettingError(f"train.batch_size: must be at least the number of processes, {parallel.world}, got {least}")


def _kind(model: Model) -> str:
    names = [name for name, stack in (("encoder", model.encoder), ("decoder", model.decoder)) if stack is not None]
    return "-".join(names)


def _check_length(model: Model, settings: PretrainSettings) -> None:
    """Refuse sequences that are longer than the model's positions."""
    for stack in model.stacks:
        if settings.data.max_tokens > stack.config.max_positions:
            raise SettingError(
                f"data.max_tokens: must be at most {stack.config.max_positions}, the model's positions, got "
                f"{settings.data.max_tokens}: lower it or set model.max_positions"
            )


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}.get(dtype, str(dtype))
