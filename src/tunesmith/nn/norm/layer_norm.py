"""Layer normalisation: zero mean and unit variance over the width, then a learned scale and shift.

Paper: Layer Normalization (arXiv:1607.06450).
"""

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.norm import NormConfig


class LayerNormConfig(NormConfig):
    """Settings of layer normalisation."""

    eps: float = pydantic.Field(default=1e-12, gt=0, description="Added to the variance.")
    bias: bool = pydantic.Field(default=True, description="Whether it learns a shift beside the scale.")

    def build(self, *, width: int) -> "LayerNorm":
        """The module."""
        return LayerNorm(width, eps=self.eps, bias=self.bias)


class LayerNorm(torch.nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias; computes in the type of x, statistics in fp32."""

    def __init__(self, width: int, *, eps: float, bias: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalise each vector."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), bias, self.eps)
