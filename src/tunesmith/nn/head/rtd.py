"""Replaced token detection: was this token put in by a generator?

Papers: ELECTRA (arXiv:2003.10555), section 2; DeBERTaV3 (arXiv:2111.09543), whose head reads the first token too.
"""

from typing import Literal

import pydantic
import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig


class RTDConfig(HeadConfig):
    """Settings of the head of replaced token detection."""

    activation: Activation = pydantic.Field(default="gelu", description="Activation of the hidden layer.")

    context: Literal["none", "first"] = pydantic.Field(
        default="none", description="first: each token plus the first of its document, normalised, as in DeBERTaV3."
    )

    def build(self, sizes: Sizes) -> "RTD":
        """The module."""
        norm = sizes.norm if self.context == "first" else None
        return RTD(d_model=sizes.d_model, activation=self.activation, norm=norm)


class RTD(Head):
    """output(activation(dense(x))), one number for each token; the sites are ``dense`` and ``output``.

    With a norm, x is norm(token + first token of its document).
    """

    gives = "numbers"

    def __init__(self, *, d_model: int, activation: Activation, norm: NormConfig | None = None):
        super().__init__()
        self.norm = None if norm is None else norm.build(width=d_model)
        self.dense = Linear(d_model, d_model)
        self.activation = ACTIVATIONS[activation]
        self.output = Linear(d_model, 1)

    def in_context(self, x: Float[Tensor, "N D"], layout: Layout) -> Float[Tensor, "N D"]:
        """Tokens with the first of their documents, where the head reads it."""
        return x if self.norm is None else self.norm(x + x[layout.starts][layout.owners])

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M 1"]:
        """Logit of "replaced" of each token."""
        return self.output(self.activation(self.dense(x.to(self.output.weight.dtype))))
