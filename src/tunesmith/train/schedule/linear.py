"""Linear warm-up, then linear decay to zero.

Paper: BERT (arXiv:1810.04805), appendix A.2.
"""

from tunesmith.train.schedule import Moment, ScheduleConfig, spent, warming


class LinearConfig(ScheduleConfig):
    """Settings of linear decay."""

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate."""
        if moment.share < moment.warmup:
            return warming(moment)
        return 1 - spent(moment)
