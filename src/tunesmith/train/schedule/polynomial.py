"""Linear warm-up, then decay by a power of what is left, down to a floor; RoBERTa's and fairseq's.

floor + (1 - floor) (1 - x)^power, where x is the spent share of what follows the warm-up.

Paper: RoBERTa (arXiv:1907.11692), section 3.1, with power 1.
"""

import pydantic

from tunesmith.train.schedule import Moment, ScheduleConfig, spent, warming


class PolynomialConfig(ScheduleConfig):
    """Settings of polynomial decay."""

    power: float = pydantic.Field(default=1.0, gt=0, description="1: a straight line; more: early; less: late.")
    floor: float = pydantic.Field(default=0.0, ge=0, le=1, description="Share of the peak that is left in the end.")

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate."""
        if moment.share < moment.warmup:
            return warming(moment)
        return self.floor + (1 - self.floor) * (1 - spent(moment)) ** self.power
