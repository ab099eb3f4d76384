"""Heads: one file each. A head turns hidden states of the encoder into what a task reads.

``reads`` says which: ``first`` (the first token of each document), ``mean`` (their mean), or ``all`` tokens.
Heads compute in the type of their own weights, so a bf16 encoder may carry an fp32 head.
"""

import abc
from dataclasses import dataclass
from typing import Literal

import torch

from tunesmith.base.choices import Choice
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
    """Base of the modules."""

    reads: Literal["first", "mean", "all"] = "all"

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M C"]:
        """Logits (or the pooled vector) of each row; ``noise`` is the stream for dropout."""
        raise TypeError(f"{type(self).__name__} must define forward")


class HeadConfig(Choice, abc.ABC):
    """Settings of a head."""

    @abc.abstractmethod
    def build(self, sizes: Sizes) -> Head:
        """The module."""
