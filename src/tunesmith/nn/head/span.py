"""Question answering: where in the text the answer starts and where it ends.

Paper: BERT (arXiv:1810.04805), section 4.2.
"""

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head._hidden import Hidden
from tunesmith.nn.linear import Linear


class SpanConfig(HeadConfig):
    """Settings of the span head."""

    hidden: Activation | None = pydantic.Field(
        default=None, description="Activation of a hidden layer, as ModernBERT has; none by default."
    )
    hidden_bias: bool = pydantic.Field(default=True, description="Whether that layer has a bias.")
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout before the output layer.")

    def build(self, sizes: Sizes) -> "Span":
        """The module."""
        hidden = None if self.hidden is None else Hidden(sizes, activation=self.hidden, bias=self.hidden_bias)
        return Span(d_model=sizes.d_model, dropout=self.dropout, hidden=hidden)


class Span(Head):
    """output(dropout(x)): logits of start and end of each token; the site is ``output``."""

    gives = "span"

    def __init__(self, *, d_model: int, dropout: float = 0.0, hidden: Hidden | None = None):
        super().__init__()
        self.dropout = dropout
        self.hidden = hidden
        self.output = Linear(d_model, 2)

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M 2"]:
        """Start and end logits of each token."""
        x = x.to(self.output.weight.dtype)
        return self.output(dropout(x if self.hidden is None else self.hidden(x), self.dropout, noise))
