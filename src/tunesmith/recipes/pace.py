"""How fast and how long to tune: what is set, and for the rest what is good for the method and data size."""

from dataclasses import dataclass

from tunesmith.recipes.settings import TuneSettings
from tunesmith.train.loop import Plan
from tunesmith.train.schedule.linear import LinearConfig


@dataclass(frozen=True)
class Pace:
    """How fast and how long to train.

    Attributes:
        batch_size: Sequences in a step.
        learning_rate: Peak.
        plan: How long, and when to look at the dev split.
    """

    batch_size: int
    learning_rate: float
    plan: Plan


def make_pace(settings: TuneSettings, *, size: int, d_model: int) -> Pace:
    """What is set, and for the rest what is good for the method and data size."""
    wanted, good = settings.train, settings.method.defaults(size=size, d_model=d_model)
    batch_size = wanted.batch_size or good.batch_size
    per_epoch = size / batch_size
    steps = max(1, round((wanted.epochs or good.epochs) * per_epoch))
    if wanted.max_steps is not None:
        steps = wanted.max_steps if wanted.epochs is None else min(steps, wanted.max_steps)
    plan = Plan(
        steps=steps,
        minutes=wanted.minutes,
        schedule=LinearConfig(),
        warmup=wanted.warmup,
        steps_per_epoch=per_epoch,
        evaluations=wanted.evaluations or good.evaluations,
        patience=wanted.patience or good.patience,
        checkpoint_seconds=wanted.checkpoint_seconds,
    )
    return Pace(batch_size, wanted.learning_rate or good.learning_rate, plan)
