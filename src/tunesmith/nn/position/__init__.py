"""Position encodings: one file each. A choice implements the hooks that it needs, the others do nothing.

``embed`` changes embeddings; ``prepare`` runs once per forward, ``rotate`` on queries and keys of each layer;
``scores`` and ``values`` add to attention inside a group. Attention calls the hooks and never asks which encoding it
has.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from tunesmith.base.choices import Choice
from tunesmith.base.layout import Group, Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.distances import Distances

OwnMaps = Literal["none", "query", "key", "both"]


@dataclass(frozen=True)
class PositionSizes:
    """What the stack gives to its position encoding.

    Attributes:
        max_positions: Longest document, in tokens.
        d_embedding: Width of the embeddings.
        d_model: Width of the model.
        num_heads: Query heads, H.
        d_head: Width of a head, K.
        causal: Whether a token sees only what stands before it.
    """

    max_positions: int
    d_embedding: int
    d_model: int
    num_heads: int
    d_head: int
    causal: bool


@dataclass(frozen=True)
class Layer:
    """What a layer's attention lends to an encoding.

    Attributes:
        project_query: The layer's map from (W, D) to queries (W, H * K).
        project_key: Its map from (W, D) to keys.
        scale: Factor of its scores.
    """

    project_query: Callable[[Tensor], Tensor]
    project_key: Callable[[Tensor], Tensor]
    scale: float


class Position(torch.nn.Module):
    """Base of the modules.

    Attributes:
        relative: Whether ``scores`` or ``values`` does something.
        rotary: Whether ``rotate`` does.
    """

    relative: bool = False
    rotary: bool = False

    def embed(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N E"]:
        """Embeddings with their positions."""
        return x

    def prepare(self, layout: Layout, like: Tensor) -> Any:
        """What all layers share in one forward; given to `rotate`."""
        return None

    def take(self, state: Any, rows: Int[Tensor, "M"]) -> Any:
        """What was prepared, for queries of some rows only; keys stay as they are."""
        return state

    def rotate(self, x: Float[Tensor, "N H K"], state: Any) -> Float[Tensor, "N H K"]:
        """Queries or keys, turned by their positions."""
        return x

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: Any,
    ) -> Float[Tensor, "..."] | None:
        """Added to the scaled scores."""
        return None

    def values(self, weights: Float[Tensor, "G H T S"], distances: Distances) -> Float[Tensor, "G H T K"] | None:
        """Added to the weighted sum of the values."""
        return None


class PositionConfig(Choice, abc.ABC):
    """Settings of a position encoding."""

    per_layer: ClassVar[bool] = False
    """Whether each layer has one of its own, with its own weights; else the stack shares one."""

    @property
    def compares_segments(self) -> bool:
        """Whether it reads segments, of which there may then be any number: only their being the same counts."""
        return False

    @property
    def own_projections(self) -> OwnMaps:
        """Which maps for positions layers have of their own, besides those of queries and keys."""
        return "none"

    @abc.abstractmethod
    def build(self, sizes: PositionSizes) -> Position:
        """The module.

        Raises:
            SettingError: It cannot be made in these sizes; the line says why.
        """

    def scale(self, d_head: int) -> float:
        """Factor of attention scores that goes with the encoding: 1 / sqrt(K)."""
        return d_head**-0.5

    def width(self, length: int) -> int:
        """Vectors that each query or its weights are multiplied with because of positions; for counting operations.

        Args:
            length: Tokens of the document.
        """
        return 0
