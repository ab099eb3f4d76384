"""Stochastic gradient descent with momentum.

Paper: On the Importance of Initialization and Momentum in Deep Learning (Sutskever et al., ICML 2013), section 2, in
torch's form: b = momentum b + g; w = w - lr b, or w - lr (g + momentum b). Weight decay is a part of g here.
"""

from collections.abc import Mapping
from typing import Literal

import pydantic
import torch
from torch.distributed.tensor import DTensor

from tunesmith.base.shapes import Tensor
from tunesmith.train.optim import OptimiserConfig, decaying
from tunesmith.train.optim._fields import Beta


class SGDConfig(OptimiserConfig):
    """Settings of stochastic gradient descent."""

    momentum: Beta = pydantic.Field(default=0.9, description="Decay of the sum of gradients; 0: the gradient alone.")
    form: Literal["heavy_ball", "nesterov"] = pydantic.Field(
        default="heavy_ball", description="nesterov: the sum as it will be after one more such gradient."
    )

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> torch.optim.SGD:
        """The optimiser, fused where torch has that: not for sharded parameters."""
        optimiser = torch.optim.SGD(
            decaying(parameters, weight_decay),
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.form == "nesterov" and self.momentum > 0,  # without momentum both are the same
            fused=not any(isinstance(parameter, DTensor) for parameter in parameters.values()),
        )
        if self.momentum:
            for parameter in parameters.values():
                # torch's fused step fails where a group's parameters get their first gradients at different steps
                optimiser.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        return optimiser

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """The sum of gradients."""
        return parameter.numel() if self.momentum else 0
