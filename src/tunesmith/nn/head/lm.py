"""Language modelling: logits over the vocabulary, masked (BERT) or causal (GPT).

Paper: BERT (arXiv:1810.04805), section 3.1, task 1; Using the Output Embedding (arXiv:1608.05859) for tied tables.
"""

from typing import Literal

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.layout import spare_rows
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.cross_entropy import cross_entropy_and_samples, linear_cross_entropy
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig


class LMConfig(HeadConfig):
    """Settings of a language-model head."""

    activation: Activation | None = pydantic.Field(
        default="gelu", description="Activation of a dense layer and norm before the output; None for no such layer."
    )
    dense_bias: bool = pydantic.Field(default=True, description="Whether the dense layer has a bias.")
    bias: bool | Literal["fixed"] = pydantic.Field(
        default=True, description="Whether the output has a bias; fixed: one that never trains, as BART has."
    )
    scale: float = pydantic.Field(default=1.0, gt=0, description="Factor of the hidden states, as T5 1.0 has.")
    table: Literal["tied", "own"] = pydantic.Field(
        default="tied", description="Output matrix: the token table itself, or one of its own."
    )

    def build(self, sizes: Sizes) -> "LM":
        """The module."""
        own = self.table == "own"
        width = sizes.d_embedding if self.activation else sizes.d_model
        return LM(
            d_model=sizes.d_model,
            d_embedding=width,
            activation=self.activation,
            norm=sizes.norm,
            tokens=torch.nn.Embedding(sizes.vocab_size, width) if own else sizes.tokens,
            own=own,
            dense_bias=self.dense_bias,
            bias=self.bias,
            scale=self.scale,
        )


class LM(Head):
    """Logits over the vocabulary; sites ``dense`` and ``norm``, parameters ``bias`` and, if not tied, ``table``."""

    def __init__(
        self,
        *,
        d_model: int,
        d_embedding: int,
        activation: Activation | None,
        norm: NormConfig,
        tokens: torch.nn.Embedding,
        own: bool,
        dense_bias: bool = True,
        bias: bool | Literal["fixed"] = True,
        scale: float = 1.0,
    ):
        super().__init__()
        self.dense = Linear(d_model, d_embedding, bias=dense_bias) if activation else None
        self.activation = ACTIVATIONS[activation] if activation else None
        self.norm = norm.build(width=d_embedding) if activation else None
        zeros = torch.zeros(tokens.num_embeddings)
        self.bias: Tensor | None
        if bias == "fixed":
            self.register_buffer("bias", zeros)
        else:
            self.bias = torch.nn.Parameter(zeros) if bias else None
        self.table = tokens if own else None
        self.scale = scale
        self._shared = [] if own else [tokens]  # a list: the tied table is not a second parameter of this module

    @property
    def output(self) -> torch.nn.Embedding:
        """The output matrix."""
        return self._shared[0] if self.table is None else self.table

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M V"]:
        """Logits of each token."""
        weight = self.output.weight
        x = self._transformed(x, weight.dtype if self.dense is None else self.dense.weight.dtype)
        return F.linear(x, weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def loss(self, x: Float[Tensor, "M D"], labels: Int[Tensor, "M"]) -> Float[Tensor, ""]:
        """Sum of the cross-entropies of the labels, in nats, with products in the type of x."""
        return linear_cross_entropy(self._rounded(x), self.output.weight, self.bias, labels)

    def loss_and_samples(
        self, x: Float[Tensor, "M D"], labels: Int[Tensor, "M"], draws: Float[Tensor, "M"]
    ) -> tuple[Float[Tensor, ""], Int[Tensor, "M"]]:
        """`loss`, and a token drawn for each row; ``draws`` are numbers in [0, 1)."""
        return cross_entropy_and_samples(self._rounded(x), self.output.weight, self.bias, labels, draws)

    def _rounded(self, x: Tensor) -> Tensor:
        """What the output matrix is applied to, with spare rows, so that there are few different numbers of them."""
        return self._transformed(F.pad(x, (0, 0, 0, spare_rows(len(x)))), x.dtype)

    def _transformed(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What the output matrix is applied to."""
        x = x.to(dtype)
        if self.dense is not None and self.activation is not None and self.norm is not None:
            x = self.norm(self.activation(self.dense(x)))
        return x if self.scale == 1.0 else x * self.scale
