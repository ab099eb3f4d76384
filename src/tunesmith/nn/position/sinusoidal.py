"""Sinusoidal positions: sines and cosines of geometric wavelengths, added to the embedding; PE(p + k) is PE(p) turned.

Paper: Attention Is All You Need (arXiv:1706.03762), section 3.5.
"""

from typing import Literal

import pydantic
import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.position import Position, PositionConfig, PositionSizes


class SinusoidalConfig(PositionConfig):
    """Settings of sinusoidal positions."""

    base: float = pydantic.Field(default=10_000.0, gt=1, description="Longest wavelength / 2 pi.")
    layout: Literal["pairs", "halves"] = pydantic.Field(
        default="pairs", description="pairs: sin and cos alternate (the paper); halves: all sines, then all cosines."
    )

    def build(self, sizes: PositionSizes) -> "Sinusoidal":
        """The module."""
        return Sinusoidal(width=sizes.d_embedding, base=self.base, halves=self.layout == "halves")


class Sinusoidal(Position):
    """x + PE(position); without parameters, for any length."""

    def __init__(self, *, width: int, base: float = 10_000.0, halves: bool = False):
        super().__init__()
        self.width, self.base, self.halves = width, base, halves

    def embed(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N E"]:
        """Add the vector of each token's position."""
        return x + sinusoids(layout.positions, self.width, base=self.base, halves=self.halves, like=x)


def sinusoids(
    positions: Int[Tensor, "N"], width: int, *, base: float, halves: bool, like: Tensor
) -> Float[Tensor, "N E"]:
    """PE(p, 2 i) = sin(p / base^(2 i / E)), PE(p, 2 i + 1) = cos of the same; of an odd width the last is a sine."""
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    steps = torch.arange(0, width, 2, device=positions.device, dtype=wide)
    angles = positions[:, None].to(wide) * base ** (-steps / width)
    sines, cosines = angles.sin(), angles.cos()[:, : width // 2]
    if halves:
        return torch.cat([sines, cosines], 1).to(like.dtype)
    found = sines.new_empty(len(positions), width)
    found[:, 0::2], found[:, 1::2] = sines, cosines
    return found.to(like.dtype)
