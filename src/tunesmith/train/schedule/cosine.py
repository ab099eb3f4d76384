"""Linear warm-up, then half a cosine down to a floor.

Paper: SGDR (arXiv:1608.03983), equation 5, without restarts.
"""

import math

import pydantic

from tunesmith.train.schedule import Moment, ScheduleConfig, spent, warming


class CosineConfig(ScheduleConfig):
    """Settings of cosine decay."""

    floor: float = pydantic.Field(default=0.0, ge=0, le=1, description="Share of the peak that is left in the end.")

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate."""
        if moment.share < moment.warmup:
            return warming(moment)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * spent(moment)))
