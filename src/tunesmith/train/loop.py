"""The training loop. It knows steps, gradients and checkpoints; what is learnt, and by which method, is given to it."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from tunesmith.base.errors import UserError
from tunesmith.base.random import global_stream, torch_stream
from tunesmith.base.shapes import Tensor
from tunesmith.text.batching import Packed
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.optim.adamw import AdamWConfig
from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.linear import LinearConfig


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came; the run is saved and can be resumed."""


class TrainingError(UserError, ArithmeticError):
    """Training went wrong in a way that settings can mend."""


@runtime_checkable
class Work(Protocol):
    """What is learnt."""

    def micro_batches(self, step: int) -> Sequence[Packed]:
        """The micro-batches of a step."""
        ...

    def count(self, batch: Packed) -> int:
        """Number of targets in a micro-batch."""
        ...

    def loss(self, batch: Packed) -> Tensor:
        """Sum of the losses of a micro-batch's targets."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """A look at the dev split: the score that models are chosen by (higher is better), and the loss."""

    score: float
    loss: float | None


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps.
        batch_size: Sequences in a step.
        steps_per_epoch: For the log.
        learning_rate: Peak.
        warmup: Share of the run.
        weight_decay: Of matrices.
        max_grad_norm: Clipping.
        evaluate_at: Steps after which to evaluate.
        patience: Evaluations without a better score before stopping.
        minutes: Time limit.
        seed: Key of the dropout streams.
        checkpoint_seconds: Time between checkpoints.
    """

    steps: int
    batch_size: int
    steps_per_epoch: float
    learning_rate: float
    warmup: float
    weight_decay: float
    max_grad_norm: float
    evaluate_at: frozenset[int]
    patience: int
    minutes: float | None
    seed: int
    checkpoint_seconds: float


def train(
    work: Work,
    parameters: Mapping[str, torch.nn.Parameter],
    plan: Plan,
    *,
    device: torch.device,
    evaluate: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    report: Callable[[Progress], None],
) -> Progress:
    """Train, and leave the parameters of the best evaluation in place.

    Args:
        work: What is learnt.
        parameters: What trains, by name.
        plan: How long and how fast.
        device: Where.
        evaluate: Looks at the dev split.
        checkpoints: Where the state is kept; what stands there is gone on from.
        report: Called after each step.

    Raises:
        TrainingError: The loss is not a number.
        Interrupted: Ctrl-C; the state is saved.
    """
    optimiser = AdamWConfig().build(parameters, learning_rate=plan.learning_rate, weight_decay=plan.weight_decay)
    progress = checkpoints.load(parameters, optimiser) or Progress()
    saved = time.monotonic()
    with _stops_cleanly() as stop:
        while not progress.done:
            started = time.monotonic()
            share = _share(progress, plan)
            _step(
                work,
                parameters,
                optimiser,
                plan,
                progress,
                device,
                rate=LinearConfig().factor(Moment(share, plan.warmup)),
            )
            progress.seconds += time.monotonic() - started
            out_of_time = plan.minutes is not None and progress.seconds >= 60 * plan.minutes
            last = progress.step >= plan.steps or out_of_time
            if last or progress.step in plan.evaluate_at:
                _look(evaluate, parameters, checkpoints, progress, plan)
                progress.done = last or progress.stale >= plan.patience
            report(progress)
            due = time.monotonic() - saved >= plan.checkpoint_seconds
            if progress.done or due or stop.is_set() or progress.step in plan.evaluate_at:
                checkpoints.save(progress, parameters, optimiser)
                saved = time.monotonic()
            if stop.is_set() and not progress.done:
                raise Interrupted
    if progress.best_step:
        checkpoints.load_best(progress, parameters)
    return progress


def _step(
    work: Work,
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    progress: Progress,
    device: torch.device,
    *,
    rate: float,
) -> None:
    batches = work.micro_batches(progress.step)
    targets = max(1, sum(work.count(batch) for batch in batches))
    total = 0.0
    for number, batch in enumerate(batches):
        noise = torch_stream("dropout", plan.seed, progress.step, number, device=device)
        with global_stream("method", plan.seed, progress.step, number, device=device):
            loss = work.loss(batch.with_noise(noise)) / targets
            loss.backward()
        total += loss.item()
        progress.examples += len(batch.indices)
        progress.tokens += batch.layout.num_tokens
    if not math.isfinite(total):
        raise TrainingError(
            f"train: the loss became {total} at step {progress.step + 1}: lower train.learning_rate "
            f"(now {plan.learning_rate:g}) or set train.precision=fp32, and start anew with --overwrite"
        )
    torch.nn.utils.clip_grad_norm_(list(parameters.values()), plan.max_grad_norm)
    for group in optimiser.param_groups:
        group["lr"] = plan.learning_rate * rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    progress.step += 1
    progress.loss_sum += total
    progress.loss_count += 1


def _share(progress: Progress, plan: Plan) -> float:
    """How much of the run is done, counting the step that comes: by steps, or by time where that is further."""
    by_steps = (progress.step + 1) / (plan.steps + 1)
    by_time = 0.0 if plan.minutes is None else progress.seconds / (60 * plan.minutes)
    return min(1.0, max(by_steps, by_time))


def _look(
    evaluate: Callable[[], Evaluation],
    parameters: Mapping[str, torch.nn.Parameter],
    checkpoints: Checkpoints,
    progress: Progress,
    plan: Plan,
) -> None:
    seen = evaluate()
    progress.curve.append(
        {
            "step": progress.step,
            "epoch": progress.step / plan.steps_per_epoch,
            "train_loss": progress.loss_sum / max(1, progress.loss_count),
            "dev_loss": seen.loss,
            "dev_metric": seen.score,
        }
    )
    progress.loss_sum, progress.loss_count = 0.0, 0
    if progress.best is None or seen.score > progress.best:
        progress.best, progress.best_step, progress.stale = seen.score, progress.step, 0
        checkpoints.save_best(progress, parameters)
    else:
        progress.stale += 1


@contextlib.contextmanager
def _stops_cleanly() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
