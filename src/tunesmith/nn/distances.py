"""Lookups by relative distance between the queries and keys of one attention group, without (T, S, K) tensors.

A relative encoding first computes a column for each distance that occurs, (..., T, W), and then moves the columns to
where they belong. In plain self-attention that is a shear of the matrix, a view with one step less between rows: the
skewing of Music Transformer (arXiv:1809.04281), section 3.4.1, for all distances instead of past ones only.
"""

import abc

import torch

from tunesmith.base.layout import Group
from tunesmith.base.shapes import Float, Int, Tensor


class Distances(abc.ABC):
    """The distances (key position - query position) of a group.

    Attributes:
        values: Every distance that occurs, ascending without gaps, (W,).
    """

    values: Int[Tensor, "W"]

    @abc.abstractmethod
    def table(self, rows: Float[Tensor, "H W"]) -> Float[Tensor, "..."]:
        """out[g, h, i, j] = rows[h, distance(i, j)]; broadcasts to (G, H, T, S)."""

    @abc.abstractmethod
    def by_query(self, x: Float[Tensor, "G H T W"]) -> Float[Tensor, "G H T S"]:
        """out[g, h, i, j] = x[g, h, i, distance(i, j)]."""

    @abc.abstractmethod
    def by_key(self, x: Float[Tensor, "G H S W"]) -> Float[Tensor, "G H T S"]:
        """out[g, h, i, j] = x[g, h, j, distance(i, j)]."""

    @abc.abstractmethod
    def sums(self, weights: Float[Tensor, "G H T S"]) -> Float[Tensor, "G H T W"]:
        """out[g, h, i, w] = sum of weights[g, h, i, j] over the keys j at that distance."""


def distances_of(group: Group, device: torch.device) -> Distances:
    """The distances of a group."""
    if group.distance is None:
        return Sheared(group.keys.length, device)
    return Looked(group.distance)


class Sheared(Distances):
    """Queries and keys are the same T places: element (i, j) lies T - 1 - i columns to the right in its row."""

    def __init__(self, length: int, device: torch.device):
        self.length = length
        self.values = torch.arange(1 - length, length, device=device)

    def table(self, rows: Float[Tensor, "H W"]) -> Float[Tensor, "1 H T T"]:
        """Row i is the T columns from T - 1 - i on."""
        return rows.unfold(-1, self.length, 1).flip(1)[None]

    def by_query(self, x: Float[Tensor, "G H T W"]) -> Float[Tensor, "G H T T"]:
        """A sheared view."""
        return _Shear.apply(x)

    def by_key(self, x: Float[Tensor, "G H T W"]) -> Float[Tensor, "G H T T"]:
        """Of the transposed matrix, whose distances have the other sign."""
        return _Shear.apply(x.flip(-1)).transpose(-1, -2)

    def sums(self, weights: Float[Tensor, "G H T T"]) -> Float[Tensor, "G H T W"]:
        """The shear undone: each distance occurs once in a row."""
        return _Unshear.apply(weights)


class Looked(Distances):
    """Any distances, looked up: for queries that are not the keys.

    Args:
        distance: Key position - query position, (T, S) or (G, T, S).
    """

    def __init__(self, distance: Int[Tensor, "... T S"]):
        first, last = int(distance.min()), int(distance.max())
        self.values = torch.arange(first, last + 1, device=distance.device)
        index = distance - first
        self.index = index if index.ndim == 3 else index[None]  # (G or 1, T, S)

    def table(self, rows: Float[Tensor, "H W"]) -> Float[Tensor, "G H T S"]:
        """Plain indexing."""
        return rows[:, self.index].transpose(0, 1)

    def by_query(self, x: Float[Tensor, "G H T W"]) -> Float[Tensor, "G H T S"]:
        """A gather."""
        return x.gather(-1, self._index(x, self.index))

    def by_key(self, x: Float[Tensor, "G H S W"]) -> Float[Tensor, "G H T S"]:
        """A gather of the transposed matrix."""
        return x.gather(-1, self._index(x, self.index.transpose(1, 2))).transpose(-1, -2)

    def sums(self, weights: Float[Tensor, "G H T S"]) -> Float[Tensor, "G H T W"]:
        """A scatter."""
        zeros = weights.new_zeros(*weights.shape[:3], len(self.values))
        return zeros.scatter_add(-1, self._index(weights, self.index), weights)

    @staticmethod
    def _index(x: Tensor, index: Tensor) -> Tensor:
        return index[:, None].expand(x.shape[0], x.shape[1], -1, -1)


def _sheared(x: Tensor, length: int) -> Tensor:
    """The (T, T) view of (..., T, 2 T - 1) whose element (i, j) is x[..., i, j - i + T - 1]."""
    strides = x.stride()
    return x.as_strided((*x.shape[:-1], length), (*strides[:-2], strides[-2] - 1, 1), x.storage_offset() + length - 1)


class _Shear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return _sheared(x.contiguous(), x.shape[-2]).contiguous()

    @staticmethod
    def backward(ctx, *grads):
        return _Unshear.apply(grads[0])


class _Unshear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        length = x.shape[-1]
        found = x.new_zeros(*x.shape[:-1], 2 * length - 1)
        _sheared(found, length).copy_(x)
        return found

    @staticmethod
    def backward(ctx, *grads):
        return _Shear.apply(grads[0])
