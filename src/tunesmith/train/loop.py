"""The training loop. It knows steps, budgets, evaluations and checkpoints; what is learnt, and how, is given to it."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.parallel import Parallel
from tunesmith.train.schedule import Moment, ScheduleConfig
from tunesmith.train.step import Stepper, TrainingError

WATCHED = 10
"""Steps in a row that a loss must be too high for to have exploded, where more steps follow."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came; the run is saved and can be resumed."""


@dataclass(frozen=True)
class Evaluation:
    """A look at the dev split: the score that models are chosen by (higher is better), and the loss."""

    score: float
    loss: float | None


@dataclass(frozen=True)
class Plan:
    """How long to train, and when to look.

    Attributes:
        steps: Optimiser steps, at most; None if only tokens or minutes end the run.
        tokens: Real tokens, at most.
        minutes: Training time, at most.
        steps_per_epoch: For the log; None where it changes.
        schedule: Learning rate over the run.
        warmup: Share of the run.
        evaluations: Looks at the dev split, evenly spread, the last at the end.
        patience: Looks without a better score before stopping; None: never.
        keeps: Parameters that are left in place: those of the best look, or the last.
        exploded: A loss that stays above this many times that of the first step has exploded; None: that of a run that
            begins with a trained model may rise, so nothing is watched.
        checkpoint_seconds: Time between checkpoints.
    """

    steps: int | None
    schedule: ScheduleConfig
    warmup: float
    evaluations: int
    checkpoint_seconds: float
    tokens: int | None = None
    minutes: float | None = None
    steps_per_epoch: float | None = None
    patience: int | None = None
    keeps: Literal["best", "last"] = "best"
    exploded: float | None = None

    def spent(self, progress: Progress) -> float:
        """Share of the budget that is spent."""
        parts = [
            0.0 if self.steps is None else progress.step / self.steps,
            0.0 if self.tokens is None else progress.tokens / self.tokens,
            0.0 if self.minutes is None else progress.seconds / (60 * self.minutes),
        ]
        return min(1.0, max(parts))

    def share(self, progress: Progress, *, tokens: float, seconds: float) -> float:
        """Share of the budget as schedules see it: the step that comes is counted, and the last one is not the end.

        Args:
            progress: Where the run stands.
            tokens: What the first step takes; later ones take as much as those before them, on average.
            seconds: The same in time.
        """
        if progress.step:
            tokens, seconds = progress.tokens / progress.step, progress.seconds / progress.step
        by_steps = 0.0 if self.steps is None else (progress.step + 1) / (self.steps + 1)
        by_tokens = 0.0 if self.tokens is None else (progress.tokens + tokens) / (self.tokens + tokens)
        by_time = 0.0 if self.minutes is None else (progress.seconds + seconds) / (60 * self.minutes + seconds)
        return min(1.0, max(by_steps, by_tokens, by_time))

    def due(self, progress: Progress) -> bool:
        """Whether it is time for a look."""
        return self.spent(progress) * self.evaluations >= len(progress.curve) + 1 - 1e-9


def train(
    stepper: Stepper,
    plan: Plan,
    *,
    evaluate: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    report: Callable[[Progress], None],
) -> Progress:
    """Train, and leave the parameters that the plan keeps in place.

    Args:
        stepper: Does steps.
        plan: How long, and when to look.
        evaluate: Looks at the dev split.
        checkpoints: Where the state is kept; what stands there is gone on from.
        report: Called after each step.

    Raises:
        TrainingError: A loss or a weight is not a number, or the loss exploded; the last good checkpoint stays.
        Interrupted: Ctrl-C; the state is saved.
    """
    progress = checkpoints.load(stepper.updates) or Progress()
    stepper.parallel.barrier()  # a run that is done deletes its checkpoint at once: all must have read it
    saved, first = time.monotonic(), True
    with _stops_cleanly() as stop:
        while not progress.done:
            started = time.monotonic()
            rate = functools.partial(_rate, plan, progress, stepper.parallel, started)
            stepper.step(progress, rate=rate, first=first)
            first = False
            progress.seconds += time.monotonic() - started
            progress.seconds = stepper.parallel.agreed(progress.seconds)
            last = plan.spent(progress) >= 1
            strange = plan.exploded is not None and _watch(progress, plan.exploded, stepper, last=last)
            looked = last or plan.due(progress)
            if looked:
                _look(evaluate, stepper, checkpoints, progress, plan)
                progress.done = last or (plan.patience is not None and progress.stale >= plan.patience)
            report(progress)
            now = time.monotonic()
            flags = {"due": float(now - saved >= plan.checkpoint_seconds), "stop": float(stop.is_set())}
            flags = stepper.parallel.sums(flags)
            # a state that may have exploded never takes the place of a good one, not even at a look or Ctrl-C
            if progress.done or (not strange and (looked or flags["stop"] or flags["due"])):
                stepper.check_weights(progress)
                checkpoints.save(progress, stepper.updates)
                saved = time.monotonic()
            if flags["stop"] and not progress.done:
                raise Interrupted
    if progress.best_step and plan.keeps == "best":
        checkpoints.load_best(progress, stepper.updates)
    return progress


def _rate(plan: Plan, progress: Progress, parallel: Parallel, started: float, tokens: int) -> float:
    """Share of the peak learning rate in the step that began then, and reads so many tokens."""
    # the first step alone has no step before it that says how long one takes: its gradients are most of the work
    seconds = 0.0 if progress.step else parallel.agreed(time.monotonic() - started)
    return plan.schedule.factor(Moment(plan.share(progress, tokens=tokens, seconds=seconds), plan.warmup))


def _watch(progress: Progress, exploded: float, stepper: Stepper, *, last: bool) -> bool:
    """Whether the loss is higher now than a run that goes well ever is.

    Raises:
        TrainingError: It has been for long, or the run would end so.
    """
    if progress.step == 1:
        progress.first_loss = progress.last_loss
    high = progress.last_loss > exploded * progress.first_loss > 0
    progress.high_steps = progress.high_steps + 1 if high else 0
    if progress.high_steps >= WATCHED or (high and last):
        long = "the last step" if progress.high_steps == 1 else f"{progress.high_steps} steps"
        raise TrainingError(
            f"train: the loss exploded: {progress.last_loss:.3g} at step {progress.step} ({stepper.work.describe()}), "
            f"and above {exploded:g} times that of the first step ({progress.first_loss:.3g}) for {long}: the last "
            f"checkpoint is from before; lower train.learning_rate (now {stepper.learning_rate:g}) or raise "
            "train.warmup, and start anew with --overwrite"
        )
    return high


def _look(
    evaluate: Callable[[], Evaluation], stepper: Stepper, checkpoints: Checkpoints, progress: Progress, plan: Plan
) -> None:
    seen = evaluate()
    if seen.loss is not None:
        stepper.check(stepper.parallel.agreed(seen.loss), "dev loss", step=progress.step)
    point = {
        "step": progress.step,
        "epoch": None if plan.steps_per_epoch is None else progress.step / plan.steps_per_epoch,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "train_loss": progress.loss_sum / max(1, progress.loss_count),
        "dev_loss": seen.loss,
        "dev_metric": seen.score,
    }
    counted = max(1, progress.loss_count)
    progress.curve.append(point | {f"train_{term}": total / counted for term, total in progress.term_sums.items()})
    progress.loss_sum, progress.loss_count, progress.term_sums = 0.0, 0, {}
    if progress.best is None or seen.score > progress.best:
        progress.best, progress.best_step, progress.stale = seen.score, progress.step, 0
        if plan.keeps == "best":
            checkpoints.save_best(progress, stepper.updates)
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
