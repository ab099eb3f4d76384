"""Adam as BERT has it: decoupled weight decay and, unless asked for, no bias correction.

m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = w - lr (m / (sqrt(v) + epsilon) + decay w)

Papers: Adam (arXiv:1412.6980), algorithm 1; BERT (arXiv:1810.04805), appendix A.2: its code leaves the correction out.
"""

import math
from collections.abc import Mapping

import pydantic
import torch

from tunesmith.base.shapes import Tensor
from tunesmith.train.optim import OptimiserConfig, decaying
from tunesmith.train.optim._fields import Beta, BiasCorrection, Epsilon


class AdamConfig(OptimiserConfig):
    """Settings of BERT's Adam."""

    beta1: Beta = pydantic.Field(default=0.9, description="Decay of the mean of gradients.")
    beta2: Beta = pydantic.Field(default=0.999, description="Decay of the mean of their squares.")
    epsilon: Epsilon = pydantic.Field(default=1e-6, description="Added to the root of the squares.")
    bias_correction: BiasCorrection = pydantic.Field(
        default="off", description="Whether the means are corrected for their beginning at zero."
    )

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> torch.optim.AdamW:
        """The optimiser: torch's fused one."""
        optimiser = torch.optim.AdamW(
            decaying(parameters, weight_decay),
            lr=learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            fused=True,
        )
        if self.bias_correction == "off":
            for parameter in parameters.values():
                # torch divides by 1 - beta^step: a state that has seen endless steps has nothing left to correct
                optimiser.state[parameter] = {
                    "step": torch.full((), math.inf, dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        return optimiser

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """Two means and the step."""
        return 2 * parameter.numel() + 1
