"""Linear warm-up, then the peak to the end."""

from tunesmith.train.schedule import Moment, ScheduleConfig, warming


class ConstantConfig(ScheduleConfig):
    """Settings of a constant learning rate."""

    def factor(self, moment: Moment) -> float:
        """Share of the peak learning rate."""
        return warming(moment)
