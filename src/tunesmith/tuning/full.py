"""Full fine-tuning: every parameter trains.

Paper: BERT (arXiv:1810.04805), section 4.
"""

from tunesmith.models.model import Model
from tunesmith.tuning import Attached, Defaults, MethodConfig, epochs_for


class FullConfig(MethodConfig):
    """No settings of its own."""

    saves = "model"

    def attach(self, model: Model, *, seed: int) -> Attached:
        """All parameters train."""
        return Attached(model, {name for name, _ in model.named_parameters()})

    def defaults(self, *, size: int, d_model: int) -> Defaults:
        """Narrow models take larger steps."""
        return Defaults(
            learning_rate=1e-4 * min(1.0, 384 / d_model) ** 0.5,
            epochs=epochs_for(size, short=3, long=6),
            batch_size=32 if size >= 500 else 16,
            patience=4,
            evaluations=10,
        )
