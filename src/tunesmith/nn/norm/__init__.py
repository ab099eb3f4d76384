"""Normalisations: one file each; ``build`` gives a module (N, D) -> (N, D)."""

import abc

import torch

from tunesmith.base.choices import Choice


class NormConfig(Choice, abc.ABC):
    """Settings of a normalisation."""

    @abc.abstractmethod
    def build(self, *, width: int) -> torch.nn.Module:
        """The module for vectors of this width."""
