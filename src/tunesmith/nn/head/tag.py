"""One label for each token.

Paper: BERT (arXiv:1810.04805), section 5.3.
"""

from typing import Annotated

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head._hidden import Hidden
from tunesmith.nn.linear import Linear

Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]


class TagConfig(HeadConfig):
    """Settings of the tagging head."""

    num_labels: int = pydantic.Field(ge=1, description="Number of tags.")
    hidden: Activation | None = pydantic.Field(
        default=None, description="Activation of a hidden layer, as ModernBERT has; none by default."
    )
    hidden_bias: bool = pydantic.Field(default=True, description="Whether that layer has a bias.")
    dropout: Rate = pydantic.Field(default=0.1, description="Dropout before the output layer.")

    def build(self, sizes: Sizes) -> "Tag":
        """The module."""
        hidden = None if self.hidden is None else Hidden(sizes, activation=self.hidden, bias=self.hidden_bias)
        return Tag(d_model=sizes.d_model, num_labels=self.num_labels, dropout=self.dropout, hidden=hidden)


class Tag(Head):
    """output(dropout(x)); the site is ``output``, and ``hidden`` where there is such a layer."""

    def __init__(self, *, d_model: int, num_labels: int, dropout: float, hidden: Hidden | None = None):
        super().__init__()
        self.dropout = dropout
        self.hidden = hidden
        self.output = Linear(d_model, num_labels)

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M C"]:
        """Logits of each token."""
        x = x.to(self.output.weight.dtype)
        return self.output(dropout(x if self.hidden is None else self.hidden(x), self.dropout, noise))
