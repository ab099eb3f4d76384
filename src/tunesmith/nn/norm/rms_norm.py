"""RMS normalisation: unit root mean square over the width, then a learned scale; no mean, no shift.

Paper: Root Mean Square Layer Normalization (arXiv:1910.07467), equation 4.
"""

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.norm import NormConfig


class RMSNormConfig(NormConfig):
    """Settings of RMS normalisation."""

    eps: float = pydantic.Field(default=1e-6, gt=0, description="Added to the mean square.")

    def build(self, *, width: int) -> "RMSNorm":
        """The module."""
        return RMSNorm(width, eps=self.eps)


class RMSNorm(torch.nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight; the mean square is taken in fp32 (fp64 for fp64)."""

    def __init__(self, width: int, *, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalise each vector."""
        wide = x if x.dtype == torch.float64 else x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return scaled.to(x.dtype) * self.weight.to(x.dtype)
