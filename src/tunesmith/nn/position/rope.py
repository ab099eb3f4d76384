"""RoPE: queries and keys are turned by angles that grow with position, so that scores depend on distance alone.

Paper: RoFormer (arXiv:2104.09864), section 3.2.
"""

from typing import Literal, NamedTuple

import pydantic
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.position import Position, PositionConfig, PositionSizes
from tunesmith.nn.position._extension import AnyExtension, Extension


class RoPEConfig(PositionConfig):
    """Settings of RoPE."""

    theta: float = pydantic.Field(default=10_000.0, gt=1, description="Base of the frequencies.")
    pairs: Literal["halves", "adjacent"] = pydantic.Field(
        default="halves", description="What is turned together: i and i + d/2 (Hugging Face), or 2i and 2i + 1 (paper)."
    )
    fraction: float = pydantic.Field(default=1.0, gt=0, le=1, description="Part of each head's width that is turned.")
    extension: AnyExtension | None = pydantic.Field(
        default=None, description="How it is stretched to longer documents: linear, ntk, dynamic, yarn or llama3."
    )

    def build(self, sizes: PositionSizes) -> "RoPE":
        """The module."""
        width = int(sizes.d_head * self.fraction)
        if width < 2 or width % 2:
            raise SettingError(f"position: rope turns pairs: the width of a head must be even, got {width}")
        if width == 2 and self.extension is not None and self.extension.kind in ("ntk", "dynamic"):
            raise SettingError(f"position.extension: {self.extension.kind} needs heads wider than 2")
        return RoPE(width=width, theta=self.theta, adjacent=self.pairs == "adjacent", extension=self.extension)


class _Turn(NamedTuple):
    cos: Float[Tensor, "N 1 F"]
    sin: Float[Tensor, "N 1 F"]


class RoPE(Position):
    """(x_1, x_2) becomes (x_1 cos - x_2 sin, x_2 cos + x_1 sin) with angle position * theta^(-2 i / d)."""

    rotary = True

    def __init__(self, *, width: int, theta: float, adjacent: bool = False, extension: Extension | None = None):
        super().__init__()
        self.width, self.theta, self.adjacent = width, theta, adjacent
        self.extension = extension or Extension()

    def prepare(self, layout: Layout, like: Tensor) -> _Turn:
        """Cosines and sines of all tokens, taken in fp32 (fp64 for fp64)."""
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        positions = layout.positions
        steps = torch.arange(0, self.width, 2, device=positions.device, dtype=wide) / self.width

        def make(base: Tensor | float) -> Tensor:
            return 1.0 / base**steps

        longest = torch.zeros(len(layout.lengths), dtype=positions.dtype, device=positions.device)
        real = positions[: layout.num_tokens]
        longest = longest.scatter_reduce(0, layout.owners, real + 1, "amax")
        spare = longest.new_ones(len(positions) - len(real))
        lengths = torch.cat([longest[layout.owners], spare])
        frequencies = self.extension.by_length(make, lengths, self.theta, self.width)
        if frequencies is None:
            base = self.extension.base_for(self.theta, self.width)
            frequencies = self.extension.frequencies(make(base), base)[None]
        angles = positions[:, None].to(wide) * frequencies.to(wide)
        size = self.extension.amplitude
        return _Turn((angles.cos() * size).to(like.dtype)[:, None], (angles.sin() * size).to(like.dtype)[:, None])

    def take(self, state: _Turn, rows: Int[Tensor, "M"]) -> _Turn:
        """The angles of some rows."""
        return _Turn(state.cos[rows], state.sin[rows])

    def rotate(self, x: Float[Tensor, "N H K"], state: _Turn) -> Float[Tensor, "N H K"]:
        """Turn the first ``width`` values of each head."""
        turned, rest = x[..., : self.width], x[..., self.width :]
        if self.adjacent:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned.chunk(2, -1)
        one, two = first * state.cos - second * state.sin, second * state.cos + first * state.sin
        turned = torch.stack([one, two], -1).flatten(-2) if self.adjacent else torch.cat([one, two], -1)
        return torch.cat([turned, rest], -1) if rest.shape[-1] else turned
