"""One label for each token.

Paper: BERT (arXiv:1810.04805), section 5.3.
"""

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.linear import Linear


class TagConfig(HeadConfig):
    """Settings of the tagging head."""

    num_labels: int = pydantic.Field(ge=1, description="Number of tags.")
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1, description="Dropout before the output layer.")

    def build(self, sizes: Sizes) -> "Tag":
        """The module."""
        return Tag(d_model=sizes.d_model, num_labels=self.num_labels, dropout=self.dropout)


class Tag(Head):
    """output(dropout(x)); the site is ``output``."""

    def __init__(self, *, d_model: int, num_labels: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.output = Linear(d_model, num_labels)

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M C"]:
        """Logits of each token."""
        return self.output(dropout(x.to(self.output.weight.dtype), self.dropout, noise))
