"""Feed-forward layers: one file each; ``build`` gives a module (N, D) -> (N, D)."""

import abc

import torch

from tunesmith.base.choices import Choice
from tunesmith.base.shapes import Float, Tensor


class FeedForward(torch.nn.Module):
    """Base of the modules."""

    def forward(self, x: Float[Tensor, "N D"], noise: torch.Generator | None = None) -> Float[Tensor, "N D"]:
        """Apply the layer to each token; ``noise`` is the stream for dropout."""
        raise TypeError(f"{type(self).__name__} must define forward")


class FeedForwardConfig(Choice, abc.ABC):
    """Settings of a feed-forward layer."""

    @abc.abstractmethod
    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> FeedForward:
        """The module.

        Args:
            d_model: Width of input and output.
            d_ff: Width inside.
            bias: Whether its maps have biases.
            dropout: Dropout of the inner activations.
        """


def equal_width(d_ff: int, *, multiple_of: int = 1) -> int:
    """Width of a gated layer (three maps) with as many weights as a plain one (two maps) of width ``d_ff``: two thirds.

    Paper: GLU Variants Improve Transformer (arXiv:2002.05202), section 3.

    Args:
        d_ff: Width of the plain layer.
        multiple_of: Round up to a multiple of this, as LLaMA does to 256.
    """
    width = round(2 * d_ff / 3) if multiple_of == 1 else int(2 * d_ff / 3)
    return max(multiple_of, -(-width // multiple_of) * multiple_of)
