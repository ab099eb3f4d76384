"""Pretrain a model on raw text: corpus, tokenizer, sequences, objective, loop, checkpoint that transformers loads."""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.base.errors import SettingError, UserError
from tunesmith.base.files import remove_quietly, write_atomic, write_json
from tunesmith.models._checkpoint import save
from tunesmith.models.model import Model
from tunesmith.recipes.corpus import Ready, make_ready
from tunesmith.recipes.feed import Feed
from tunesmith.recipes.learner import Pretraining, Trainee, gathered, make_learner, make_updates
from tunesmith.recipes.listener import Listener, Silent
from tunesmith.recipes.load import load
from tunesmith.recipes.output import METRICS, OutputFolder
from tunesmith.recipes.pretrain_settings import PretrainSettings, pretrain_settings
from tunesmith.recipes.settings import nested
from tunesmith.recipes.tracking import check_track, tracked
from tunesmith.recipes.validation import Losses, Validation
from tunesmith.report.training import render_training
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.loop import Evaluation, Plan, train
from tunesmith.train.parallel import Parallel, processes
from tunesmith.train.precision import (
    Machine,
    choose_machine,
    peak_memory_bytes,
    reset_peak_memory,
    reuse_memory,
)
from tunesmith.train.step import Stepper, TrainingError

EXPLODED = 2.0
"""A loss that stays above this many times its beginning ends the run: a fresh model begins with the highest one."""
GOOD = "last_good"
"""Folder in that of a run that diverged: the model of the last good checkpoint, to go on from with other settings."""
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
    folder = None if out is None else Path(out)
    return run_pretrain(recipe, corpus, folder, resolved, resume=resume, overwrite=overwrite, listener=listener)


def run_pretrain(
    recipe: str,
    corpus: str | Path,
    folder: Path | None,
    settings: PretrainSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Model:
    """Pretrain with resolved settings; see `pretrain`."""
    listener = listener or Silent()
    check_track(settings.train.track)
    machine = choose_machine(settings.train.device, settings.train.precision)
    record = {"verb": "pretrain", "recipe": recipe, "source": str(corpus), **settings.model_dump(mode="json")}
    with processes(settings.train.engine, device=machine.device) as parallel, _kept_in(folder, parallel) as out:
        _check_processes(settings, parallel)
        if not parallel.leads:  # the leading process makes the folder, the tokenizer and the shards ready
            said = parallel.agreed(_READY)
            if said == _FAILED:
                raise UserError(f"{out}: the leading process could not begin, and says why")
            if said == _READY:
                ready = make_ready(corpus, out, settings, Silent())
                _learn(ready, out, settings, machine, parallel, Silent(), stays=folder is not None)
            return load(out)
        told = False
        try:
            with OutputFolder(out, record, resume=resume, overwrite=overwrite) as finished:
                if finished:
                    told = True
                    listener.note(f"{out}: already finished")
                    parallel.agreed(_FINISHED)
                else:
                    reset_peak_memory(machine.device)
                    ready = make_ready(corpus, out, settings, listener)
                    told = True
                    parallel.agreed(_READY)
                    _learn(ready, out, settings, machine, parallel, listener, stays=folder is not None)
        except Exception:
            if not told:  # the others wait, and would end with a broken connection
                parallel.agreed(_FAILED)
            raise
        return load(out)


@contextlib.contextmanager
def _kept_in(folder: Path | None, parallel: Parallel) -> Iterator[Path]:
    """The folder of the run; where none is given, a temporary one that all processes share, and that goes."""
    if folder is not None:
        yield folder
        return
    temporary = Path(parallel.said(tempfile.mkdtemp(prefix="tunesmith-") if parallel.leads else ""))
    try:
        yield temporary / "run"
        parallel.barrier()  # all have read the model
    finally:
        if parallel.leads:
            remove_quietly(temporary)


def _learn(
    ready: Ready,
    out: Path,
    settings: PretrainSettings,
    machine: Machine,
    parallel: Parallel,
    listener: Listener,
    *,
    stays: bool,
) -> None:
    """The run itself, in a folder that is ours; ``stays``: also when the run ends."""
    model, objective = make_learner(settings, ready, listener)
    listener.note(f"computing in {machine.precision} on {machine.device.type}: {machine.reason}")
    reuse_memory()
    trainee = Trainee(model, objective)
    if not parallel.shards:  # else the engine brings it there, block by block, and no device holds the whole
        trainee.to(machine.device)
    total = sum(p.numel() for p in trainee.parameters())
    feed = Feed(ready.train, ready.vocabulary.frame, settings)
    plan = make_plan(settings, feed)
    sequences = len(feed.samples(1, 0))  # before the dev part is cut, so that its faults are its own
    validation = Validation(ready.dev, ready.vocabulary.frame, objective, settings, machine)
    wrapped = parallel.wrap(
        trainee,
        [block for stack in model.stacks for block in stack.blocks],
        unreached=lambda: validation.unreached(trainee),
    )
    updates = make_updates(trainee, objective, settings)
    limit = settings.train.micro_batch_tokens
    work = Pretraining(wrapped, objective, feed, plan, parallel, machine, limit, ready.tokenizer.decode)
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
    listener.note(
        f"{settings.objective.choice_name()} on {total / 1e6:.1f} M parameters, {ready.train.num_tokens / 1e6:.2f} M "
        f"tokens, {sequences} sequences an epoch"
    )

    def evaluate() -> Evaluation:
        losses = validation.losses(wrapped)
        return Evaluation(-losses.total, losses.total)

    model.compute_dtype = machine.dtype
    trainee.train()

    def report(progress: Progress) -> None:
        hearing.step(progress, plan.spent(progress))
        if progress.curve and progress.curve[-1]["step"] == progress.step:
            parallel.leader_does(lambda: _write_curves(out, progress, plan, settings, machine, ready))

    def whole() -> Trainee | None:
        """All of it, in the leading process."""
        if parallel.shards:
            return gathered(trainee, lambda: Trainee(*make_learner(settings, ready, Silent())), parallel)
        return trainee

    checkpoints = Checkpoints(out / "checkpoint", parallel)
    with tracked(listener, settings.train.track if parallel.leads else None, out) as hearing:
        try:
            progress = train(stepper, plan, evaluate=evaluate, checkpoints=checkpoints, report=report)
        except TrainingError as error:
            good = checkpoints.load(updates) if stays else None
            if good is None:
                raise
            model.compute_dtype = None
            result = whole()
            parallel.leader_does(lambda: _save(result, out / GOOD))
            raise TrainingError(
                f"{error}, or go on in another folder from step {good.step}, the last good one, with "
                f"model.checkpoint={out / GOOD}"
            ) from None
    model.compute_dtype = None
    listener.stage("evaluating")
    losses = validation.losses(trainee) if parallel.leads or parallel.shards else None
    result = whole()

    def finish() -> None:
        assert result is not None
        assert losses is not None
        _finish(out, result, losses, validation.bits_per_byte(losses), progress, settings, machine, ready)

    parallel.leader_does(finish)


def make_plan(settings: PretrainSettings, feed: Feed) -> Plan:
    """How long to train, and when to look."""
    wanted = settings.train
    steps = wanted.max_steps
    if wanted.epochs is not None:
        of_epochs = max(1, math.ceil(round(wanted.epochs / _epochs_of_a_step(feed), 6)))
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
        exploded=EXPLODED,
    )


def _epochs_of_a_step(feed: Feed) -> float:
    """Share of the whole text that a step reads, as the mean over the run: sequences and batches may grow in it."""
    moments = (np.arange(1000) + 0.5) / 1000
    return float(np.mean([feed.batch_size(spent) / len(feed.samples(feed.stage(spent), 0)) for spent in moments]))


def _write_curves(
    out: Path, progress: Progress, plan: Plan, settings: PretrainSettings, machine: Machine, ready: Ready
) -> None:
    """The curves and the report as they are now: a run that goes on, was stopped or diverged has them too."""
    metrics = {
        "state": f"unfinished: {plan.spent(progress):.0%} of the budget is spent".replace("%", " %"),
        "validation_loss": progress.curve[-1]["dev_loss"],
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        "train_seconds": progress.seconds,
        "precision": machine.precision,
    }
    _write_report(out, progress, metrics, settings, ready)


def _write_report(
    out: Path, progress: Progress, metrics: Mapping[str, Any], settings: PretrainSettings, ready: Ready
) -> None:
    write_atomic(out / "curve.json", json.dumps(progress.curve))
    cleaning = None if ready.cleaning is None else ready.cleaning.tree()
    page = render_training(progress.curve, metrics, settings.model_dump(mode="json"), cleaning)
    write_atomic(out / "report.html", page)


def _finish(
    out: Path,
    trainee: Trainee,
    losses: Losses,
    bits_per_byte: float | None,
    progress: Progress,
    settings: PretrainSettings,
    machine: Machine,
    ready: Ready,
) -> None:
    """Save, and write the report and the metrics (last: they say that the run is whole)."""
    _save(trainee, out)
    model = trainee.model
    remove_quietly(out / GOOD)  # of a run that diverged and, with more luck, did not when it was resumed
    seconds = max(progress.seconds, 1e-9)
    metrics = {
        **_dev_metrics(losses, bits_per_byte),
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
        "precision": machine.precision,
    }
    _write_report(out, progress, metrics, settings, ready)
    write_json(out / METRICS, metrics)
    remove_quietly(out / "checkpoint")


def _save(trainee: Trainee | None, folder: Path) -> None:
    """The model, and the objective's further models beside it."""
    assert trainee is not None
    trainee.objective.finish(trainee.model)
    save(trainee.model.eval().cpu(), folder)
    for name, network in trainee.objective.networks.items():
        if isinstance(network, Model):
            save(network.eval().cpu(), folder / name)


def _dev_metrics(losses: Losses, bits_per_byte: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dev": {"loss": losses.total, **{f"{term}_loss": value for term, value in losses.means.items()}},
        "metric": "loss",
        "validation_loss": losses.total,
        "constant_loss": losses.constant_total,
        "constant_losses": dict(losses.constants),
    }
    if "lm" in losses.means:
        found["dev"]["perplexity"] = math.exp(min(losses.means["lm"], 700.0))
    if bits_per_byte is not None:
        found["dev"]["bits_per_byte"] = bits_per_byte
    return found


def _check_processes(settings: PretrainSettings, parallel: Parallel) -> None:
    """Refuse steps with fewer sequences than processes: some would have nothing to do."""
    least = min(settings.train.batch_size, settings.train.batch_start or settings.train.batch_size)
    if least < parallel.world:
        raise SettingError(f"train.batch_size: must be at least the number of processes, {parallel.world}, got {least}")


def _kind(model: Model) -> str:
    names = [name for name, stack in (("encoder", model.encoder), ("decoder", model.decoder)) if stack is not None]
    return "-".join(names)
