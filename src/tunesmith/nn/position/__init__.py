"""Position encodings: one file each. A choice implements the hooks that it needs.

``embed(x, layout)`` changes the embeddings of packed tokens; attention calls no hook yet.
"""

import abc

import torch

from tunesmith.base.choices import Choice
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor


class Position(torch.nn.Module):
    """Base of the modules; its hooks do nothing."""

    def embed(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N E"]:
        """Embeddings with their positions."""
        return x


class PositionConfig(Choice, abc.ABC):
    """Settings of a position encoding."""

    @abc.abstractmethod
    def build(self, *, max_positions: int, width: int) -> Position:
        """The module.

        Args:
            max_positions: Longest document, in tokens.
            width: Width of the embeddings.
        """
