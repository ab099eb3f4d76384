"""BERT's and ALBERT's pretraining: masked language modelling, and a question about the two texts.

Papers: BERT (arXiv:1810.04805), section 3.1 (are they neighbours); ALBERT (arXiv:1909.11942), section 3.1 (in order).
"""

from typing import Literal

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import dropout
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head.lm import LM
from tunesmith.nn.linear import Linear


class PretrainConfig(HeadConfig):
    """Settings of the pretraining head."""

    activation: Activation = pydantic.Field(default="gelu", description="Activation of the language-model part.")
    table: Literal["tied", "own"] = pydantic.Field(
        default="tied", description="Output matrix: the token table itself, or one of its own."
    )
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout of the pooled vector.")

    def build(self, sizes: Sizes) -> "Pretrain":
        """The module."""
        own = self.table == "own"
        tokens = torch.nn.Embedding(sizes.vocab_size, sizes.d_embedding) if own else sizes.tokens
        lm = LM(
            d_model=sizes.d_model,
            d_embedding=sizes.d_embedding,
            activation=self.activation,
            norm=sizes.norm,
            tokens=tokens,
            own=own,
        )
        return Pretrain(lm, d_model=sizes.d_model, dropout=self.dropout)


class Pretrain(Head):
    """A language-model head ``lm`` and pair(dropout(tanh(pool(first token)))); sites ``pool`` and ``pair``."""

    def __init__(self, lm: LM, *, d_model: int, dropout: float):
        super().__init__()
        self.lm = lm
        self.dropout = dropout
        self.pool = Linear(d_model, d_model)
        self.pair = Linear(d_model, 2)

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M V"]:
        """Logits of each token."""
        return self.lm(x, noise)

    def pair_logits(self, first: Float[Tensor, "B D"], noise: torch.Generator | None) -> Float[Tensor, "B 2"]:
        """Logits about the pair."""
        pooled = torch.tanh(self.pool(first.to(self.pool.weight.dtype)))
        return self.pair(dropout(pooled, self.dropout, noise))
