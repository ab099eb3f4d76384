"""Linear: an affine map that computes in the type of its input while its weights may be kept in a wider one."""

import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Float, Tensor


class Linear(torch.nn.Linear):
    """y = x W^T + b, in the type of x; weights kept in fp32 serve a bf16 stream and get fp32 gradients."""

    def forward(self, input: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        """Apply the map."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)
