"""Linear warm-up, then decay by one over the square root of what is spent.

sqrt(warmup / share) behind the warm-up; a run has no length in the paper, so the end is not zero unless asked for.

Paper: Attention Is All You Need (arXiv:1706.03762), equation 3, in fairseq's form: the peak is the learning rate.
"""

from typing import Literal

import pydantic

from tunesmith.base.errors import SettingError
from tunesmith.train.schedule import Moment, ScheduleConfig, spent, warming


class InverseSqrtConfig(ScheduleConfig):
    """Settings of inverse square root decay."""

    landing: Literal["none", "zero"] = pydantic.Field(
        default="none", description="zero: stretched downwards such that the end is zero."
    )

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate.

        Raises:
            SettingError: There is no warm-up to measure the decay by.
        """
        if not moment.warmup:
            raise SettingError("train.warmup: must be more than 0 with inverse_sqrt, which decays by its length, got 0")
        if moment.share < moment.warmup:
            return warming(moment)
        here = (moment.warmup / moment.share) ** 0.5
        if self.landing == "none":
            return here
        # (here - end) / (1 - end) with end = sqrt(warmup), without the differences of nearly equal roots
        return here * (1 - spent(moment)) * (1 + moment.warmup**0.5) / (1 + moment.share**0.5)
