"""BitFit: only the biases and the head train.

Paper: BitFit (arXiv:2106.10199).
"""

from tunesmith.models.model import Model
from tunesmith.tuning import Attached, Defaults, MethodConfig, epochs_for


class BitFitConfig(MethodConfig):
    """No settings of its own."""

    saves = "delta"

    def attach(self, model: Model, *, seed: int) -> Attached:
        """All biases (those of norms too) and the head train."""
        trains = {n for n, _ in model.named_parameters() if n.startswith("head.") or n.rpartition(".")[2] == "bias"}
        return Attached(model, trains)

    def defaults(self, *, size: int, d_model: int) -> Defaults:
        """Biases want large steps."""
        return Defaults(
            learning_rate=2e-3,
            epochs=epochs_for(size, short=4, long=10),
            batch_size=32 if size >= 500 else 16,
            patience=5,
            evaluations=12,
        )
