"""AdamW: Adam with weight decay apart from the gradient.

Paper: Decoupled Weight Decay Regularization (arXiv:1711.05101), algorithm 2; amsgrad: On the Convergence of Adam and
Beyond (arXiv:1904.09237), algorithm 2. Differs: amsgrad takes the largest mean of squares and corrects its bias
afterwards, as torch does, where some write-ups take the largest of the corrected means.
"""

from collections.abc import Mapping

import pydantic
import torch

from tunesmith.base.shapes import Tensor
from tunesmith.train.optim import OptimiserConfig, decaying
from tunesmith.train.optim._fields import Beta, Epsilon


class AdamWConfig(OptimiserConfig):
    """Settings of AdamW."""

    beta1: Beta = pydantic.Field(default=0.9, description="Decay of the mean of gradients.")
    beta2: Beta = pydantic.Field(default=0.999, description="Decay of the mean of their squares.")
    epsilon: Epsilon = pydantic.Field(default=1e-8, description="Added to the root of the squares.")
    amsgrad: bool = pydantic.Field(default=False, description="Divide by the largest mean of squares so far.")
    maximize: bool = pydantic.Field(default=False, description="Go up the objective in place of down.")

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> torch.optim.AdamW:
        """The optimiser, fused."""
        return torch.optim.AdamW(
            decaying(parameters, weight_decay),
            lr=learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            amsgrad=self.amsgrad,
            maximize=self.maximize,
            fused=True,
        )

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """Two means and the step; amsgrad: the largest mean too."""
        return (3 if self.amsgrad else 2) * parameter.numel() + 1
