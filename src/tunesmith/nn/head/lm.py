"""Masked language modelling: dense, activation, norm, then the token table as output matrix, plus a bias.

Paper: BERT (arXiv:1810.04805), section 3.1, task 1.
"""

from typing import Literal

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig


class LMConfig(HeadConfig):
    """Settings of the language-model head."""

    activation: Activation = pydantic.Field(default="gelu", description="Activation after the dense layer.")
    table: Literal["tied", "own"] = pydantic.Field(
        default="tied", description="Output matrix: the token table itself, or one of its own."
    )

    def build(self, sizes: Sizes) -> "LM":
        """The module."""
        own = self.table == "own"
        return LM(
            d_model=sizes.d_model,
            d_embedding=sizes.d_embedding,
            activation=self.activation,
            norm=sizes.norm,
            tokens=torch.nn.Embedding(sizes.vocab_size, sizes.d_embedding) if own else sizes.tokens,
            own=own,
        )


class LM(Head):
    """Logits over the vocabulary; sites ``dense`` and ``norm``, parameters ``bias`` and, if not tied, ``table``."""

    def __init__(
        self,
        *,
        d_model: int,
        d_embedding: int,
        activation: Activation,
        norm: NormConfig,
        tokens: torch.nn.Embedding,
        own: bool,
    ):
        super().__init__()
        self.dense = Linear(d_model, d_embedding)
        self.activation = ACTIVATIONS[activation]
        self.norm = norm.build(width=d_embedding)
        self.bias = torch.nn.Parameter(torch.zeros(tokens.num_embeddings))
        self.table = tokens if own else None
        self._shared = [] if own else [tokens]  # a list: the tied table is not a second parameter of this module

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M V"]:
        """Logits of each token."""
        x = self.norm(self.activation(self.dense(x.to(self.dense.weight.dtype))))
        table = self._shared[0] if self.table is None else self.table
        return F.linear(x, table.weight.to(x.dtype), self.bias.to(x.dtype))
