"""Gate, up, down: the shape that GLU and its variants share."""

from collections.abc import Callable

import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.feedforward import FeedForward
from tunesmith.nn.linear import Linear


class Gated(FeedForward):
    """down(dropout(activation(gate(x)) * up(x))) with the sites ``gate``, ``up`` and ``down``.

    Paper: GLU Variants Improve Transformer (arXiv:2002.05202), equation 6.
    """

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        *,
        d_model: int,
        d_ff: int,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.activation = activation
        self.dropout = dropout
        self.gate = Linear(d_model, d_ff, bias=bias)
        self.up = Linear(d_model, d_ff, bias=bias)
        self.down = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "N D"], noise: torch.Generator | None = None) -> Float[Tensor, "N D"]:
        """Apply the layer to each token."""
        return self.down(dropout(self.activation(self.gate(x)) * self.up(x), self.dropout, noise))
