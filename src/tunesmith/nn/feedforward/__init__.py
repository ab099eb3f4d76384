"""Feed-forward layers: one file each; ``build`` gives a module (N, D) -> (N, D)."""

import abc

import torch

from tunesmith.base.choices import Choice


class FeedForwardConfig(Choice, abc.ABC):
    """Settings of a feed-forward layer."""

    @abc.abstractmethod
    def build(self, *, d_model: int, d_ff: int) -> torch.nn.Module:
        """The module.

        Args:
            d_model: Width of input and output.
            d_ff: Width inside.
        """
