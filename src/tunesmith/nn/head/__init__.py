"""Heads: one file each. A head turns hidden states of the encoder into what a task reads.

``reads`` says which: ``first`` or ``last`` (a token of each document), ``mean`` (of its tokens), or ``all`` tokens.
Heads compute in the type of their own weights, so a bf16 encoder may carry an fp32 head.
"""

import abc
from dataclasses import dataclass
from typing import Literal

import torch

from tunesmith.base.choices import Choice
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.norm import NormConfig


@dataclass(frozen=True)
class Sizes:
    """What the model gives to its head.

    Attributes:
        d_model: Width of the hidden states.
        d_embedding: Width of the token table.
        vocab_size: Rows of the token table.
        norm: The model's normalisation.
        tokens: The token table itself, for tied heads.
    """

    d_model: int
    d_embedding: int
    vocab_size: int
    norm: NormConfig
    tokens: torch.nn.Embedding


class Head(torch.nn.Module):
    """Base of the modules.

    Attributes:
        reads: Which hidden states it is given.
        gives: What its output is: logits, a pooled vector, a number for each token, or start and end of a span.
    """

    reads: Literal["first", "last", "mean", "all"] = "all"
    gives: Literal["logits", "pooled", "numbers", "span"] = "logits"

    def in_context(self, x: Float[Tensor, "N D"], layout: Layout) -> Float[Tensor, "N D"]:
        """Hidden states of all tokens with what the head takes from elsewhere in their documents; before `forward`."""
        return x

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M C"]:
        """Logits (or the pooled vector) of each row; ``noise`` is the stream for dropout."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def pair_logits(self, first: Float[Tensor, "B D"], noise: torch.Generator | None) -> Float[Tensor, "B 2"] | None:
        """What a pretraining head says of a pair of texts, from its first token; None for other heads."""
        return None


class HeadConfig(Choice, abc.ABC):
    """Settings of a head."""

    @abc.abstractmethod
    def build(self, sizes: Sizes) -> Head:
        """The module."""
