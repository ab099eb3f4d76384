"""Up, activation, down: the shape that ReLU, GELU and Swish share."""

from collections.abc import Callable

import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.linear import Linear


class TwoLayers(torch.nn.Module):
    """down(activation(up(x))) with the sites ``up`` and ``down``.

    Paper: Attention Is All You Need (arXiv:1706.03762), equation 2.
    """

    def __init__(self, activation: Callable[[Tensor], Tensor], *, d_model: int, d_ff: int):
        super().__init__()
        self.activation = activation
        self.up = Linear(d_model, d_ff)
        self.down = Linear(d_ff, d_model)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Apply the layer to each token."""
        return self.down(self.activation(self.up(x)))
