"""Warm-up, stable, decay: the peak until the last part of the run, then down to zero.

Papers: MiniCPM (arXiv:2404.06395), section 4; Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations
(arXiv:2405.18392), equation 1, for the decay by 1 - sqrt(x).
"""

import math
from typing import Literal

import pydantic

from tunesmith.train.schedule import Moment, ScheduleConfig, warming


class WSDConfig(ScheduleConfig):
    """Settings of warm-up, stable, decay."""

    decay: float = pydantic.Field(
        default=0.1, gt=0, le=1, description="Share of the run that decays; what the warm-up leaves, at most."
    )
    shape: Literal["sqrt", "linear", "cosine"] = pydantic.Field(
        default="sqrt",
        description="How it decays, x being the spent share of the decay: 1 - sqrt(x), 1 - x, or cosine.",
    )

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate."""
        begin = max(moment.warmup, 1 - self.decay)
        if moment.share <= begin:
            return warming(moment)
        x = min(1.0, (moment.share - begin) / (1 - begin))
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * x))
        return 1 - (math.sqrt(x) if self.shape == "sqrt" else x)
