"""Learning rate over a run: one file each; ``factor`` gives the share of the peak.

Schedules see shares of the budget, not steps: a budget in minutes or tokens lands at the same end.
"""

import abc
from dataclasses import dataclass

from tunesmith.base.choices import Choice


@dataclass(frozen=True)
class Moment:
    """Where a run stands at the step that comes.

    Attributes:
        share: Share of the budget (steps, tokens or minutes) that is spent with it, in [0, 1]; 1 is the end.
        warmup: Share of the budget that warms up, in [0, 1).
    """

    share: float
    warmup: float


class ScheduleConfig(Choice, abc.ABC):
    """Settings of a schedule."""

    @abc.abstractmethod
    def factor(self, moment: Moment) -> float:
        """Factor of the peak learning rate, in [0, 1]."""


def warming(moment: Moment) -> float:
    """Linear rise over the warm-up; 1 behind it."""
    return min(1.0, moment.share / moment.warmup) if moment.warmup else 1.0


def spent(moment: Moment) -> float:
    """Spent share, in [0, 1], of what follows the warm-up."""
    return min(1.0, max(0.0, (moment.share - moment.warmup) / (1 - moment.warmup)))
