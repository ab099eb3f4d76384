"""A convolution over neighbouring tokens: of the embeddings, added to the output of the first block.

Paper: DeBERTa (arXiv:2006.03654); its v2 code has the layer in the models of 0.9 and 1.5 billion weights.
"""

from typing import Literal

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.config import Config
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.norm import NormConfig


class ConvolutionConfig(Config):
    """Settings of the convolution."""

    kernel: Literal[1, 3, 5, 7, 9] = pydantic.Field(default=3, description="Tokens that it reads.")
    groups: int = pydantic.Field(default=1, ge=1, description="Groups of channels that are mapped apart.")
    activation: Activation = pydantic.Field(default="tanh", description="Activation.")

    def build(self, *, d_model: int, norm: NormConfig, dropout: float) -> "Convolution":
        """The module."""
        return Convolution(
            d_model=d_model,
            kernel=self.kernel,
            groups=self.groups,
            activation=self.activation,
            norm=norm.build(width=d_model),
            dropout=dropout,
        )


class Convolution(torch.nn.Module):
    """norm(x + activation(dropout(map(embeddings)))), inside each document; the sites are ``map`` and ``norm``."""

    def __init__(
        self, *, d_model: int, kernel: int, groups: int, activation: Activation, norm: torch.nn.Module, dropout: float
    ):
        super().__init__()
        self.map = torch.nn.Conv1d(d_model, d_model, kernel, padding=kernel // 2, groups=groups)
        self.activation = ACTIVATIONS[activation]
        self.norm = norm
        self.dropout = dropout

    def forward(
        self, embeddings: Float[Tensor, "N D"], x: Float[Tensor, "N D"], layout: Layout
    ) -> Float[Tensor, "N D"]:
        """Add what the neighbours' embeddings say to the output of the first block."""
        places = layout.owners, layout.places
        real = embeddings[: layout.num_tokens]
        rows = real.new_zeros(len(layout.lengths), max(layout.lengths), real.shape[1]).index_put(places, real)
        bias = None if self.map.bias is None else self.map.bias.to(rows.dtype)
        weight, (pad,) = self.map.weight.to(rows.dtype), self.map.padding
        found = F.conv1d(rows.mT, weight, bias, padding=int(pad), groups=self.map.groups).mT[places]
        found = self.activation(dropout(found, self.dropout, layout.noise))
        return self.norm(x + F.pad(found, (0, 0, 0, len(x) - len(found))))
