"""What objectives share that end in one plain sum: the cross-entropy of the batch's labels at its rows."""

import abc

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.objectives import Batch, Objective, Phase
from tunesmith.objectives._run import lm_loss


class LMObjective(Objective, abc.ABC):
    """One term and one update; what is left to say is how a batch is prepared."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        return (Phase("train", {"lm": 1.0}, lambda name: True),)

    def targets(self, batch: Batch) -> dict[str, int]:
        """Predicted tokens."""
        assert batch.rows is not None
        return {"lm": len(batch.rows)}

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the cross-entropies."""
        return {"lm": lm_loss(model, batch)}
