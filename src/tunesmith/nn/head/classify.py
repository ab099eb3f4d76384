"""Classification or regression of a whole document (or pair), from its first token or the mean of its tokens.

Paper: BERT (arXiv:1810.04805), section 4.1; RoBERTa and ELECTRA put a hidden layer of their own before the output.
"""

from typing import Annotated, Literal

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.pooling import Pooling

Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]


class ClassifyConfig(HeadConfig):
    """Settings of the classification head."""

    num_labels: int = pydantic.Field(ge=1, description="Number of outputs; 1 for regression.")
    problem: Literal["single_label", "multi_label", "regression"] = pydantic.Field(
        default="single_label", description="What the outputs mean: one class, several, or numbers."
    )
    pooling: Pooling = pydantic.Field(default="first", description="Which vector stands for the document.")
    layer: int | None = pydantic.Field(
        default=None, ge=0, description="Read the output of this many blocks (0: the embeddings); all by default."
    )
    hidden: Activation | None = pydantic.Field(
        default=None, description="Activation of a hidden layer before the output; none by default."
    )
    hidden_norm: bool = pydantic.Field(default=False, description="Normalise behind the hidden layer, as ModernBERT.")
    hidden_bias: bool = pydantic.Field(default=True, description="Whether the hidden layer has a bias.")
    bias: bool = pydantic.Field(default=True, description="Whether the output layer has a bias.")
    hidden_dropout: Rate = pydantic.Field(default=0.0, description="Dropout before the hidden layer.")
    dropout: Rate = pydantic.Field(default=0.1, description="Dropout before the output layer.")

    def build(self, sizes: Sizes) -> "Classify":
        """The module."""
        return Classify(
            d_model=sizes.d_model,
            num_labels=self.num_labels,
            pooling=self.pooling,
            hidden=self.hidden,
            norm=sizes.norm if self.hidden_norm else None,
            hidden_bias=self.hidden_bias,
            bias=self.bias,
            hidden_dropout=self.hidden_dropout,
            dropout=self.dropout,
        )


class Classify(Head):
    """output(dropout(norm(activation(dense(dropout(x)))))) or output(dropout(x)); sites ``dense`` and ``output``."""

    def __init__(
        self,
        *,
        d_model: int,
        num_labels: int,
        pooling: Pooling,
        hidden: Activation | None,
        hidden_dropout: float,
        dropout: float,
        norm: NormConfig | None = None,
        hidden_bias: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        self.reads = pooling
        self.dense = Linear(d_model, d_model, bias=hidden_bias) if hidden else None
        self.norm = norm.build(width=d_model) if norm else None
        self.activation = ACTIVATIONS[hidden] if hidden else None
        self.hidden_dropout = hidden_dropout
        self.dropout = dropout
        self.output = Linear(d_model, num_labels, bias=bias)

    def forward(self, x: Float[Tensor, "B D"], noise: torch.Generator | None) -> Float[Tensor, "B C"]:
        """Logits of each document."""
        return self.output(dropout(self.hidden_vector(x, noise), self.dropout, noise))

    def hidden_vector(self, x: Float[Tensor, "B D"], noise: torch.Generator | None) -> Float[Tensor, "B D"]:
        """What the output layer reads, before its dropout: the features of a linear probe of this head."""
        x = x.to(self.output.weight.dtype)
        if self.dense is None or self.activation is None:
            return x
        x = self.activation(self.dense(dropout(x, self.hidden_dropout, noise)))
        return x if self.norm is None else self.norm(x)
