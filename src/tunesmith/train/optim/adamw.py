"""AdamW: Adam with weight decay apart from the gradient.

Paper: Decoupled Weight Decay Regularization (arXiv:1711.05101), algorithm 2; amsgrad: On the Convergence of Adam and
Beyond (arXiv:1904.09237), algorithm 2.
"""

from collections.abc import Mapping
from typing import Annotated

import pydantic
import torch

from tunesmith.train.optim import OptimiserConfig, decaying

Beta = Annotated[float, pydantic.Field(ge=0, lt=1)]


class AdamWConfig(OptimiserConfig):
    """Settings of AdamW."""

    beta1: Beta = pydantic.Field(default=0.9, description="Decay of the mean of gradients.")
    beta2: Beta = pydantic.Field(default=0.999, description="Decay of the mean of their squares.")
    epsilon: float = pydantic.Field(default=1e-8, gt=0, description="Added to the root of the squares.")
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
