"""Optimisers: one file each. ``build`` gives a ``torch.optim.Optimizer`` over named parameters.

The state of each parameter is a flat table of tensors, so that checkpoints need no pickle.
"""

import abc
from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.base.choices import Choice
from tunesmith.base.shapes import Tensor


class OptimiserConfig(Choice, abc.ABC):
    """Settings of an optimiser; the learning rate and weight decay are settings of the training."""

    @abc.abstractmethod
    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimiser; its numbering of the parameters is that of the mapping.

        Args:
            parameters: What trains, by name.
            learning_rate: Peak learning rate.
            weight_decay: Decay of tensors with two or more dimensions; vectors have none.
        """

    @abc.abstractmethod
    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """How many numbers its state keeps for a parameter; what a plan of memory is made from."""


def decaying(parameters: Mapping[str, torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Groups of neighbouring parameters that decay alike: matrices decay, vectors do not."""
    groups: list[dict[str, Any]] = []
    for parameter in parameters.values():
        decay = weight_decay if parameter.ndim >= 2 else 0.0
        if groups and groups[-1]["weight_decay"] == decay:
            groups[-1]["params"].append(parameter)
        else:  # a new group each time, so that the optimiser's numbering is the mapping's whatever decays
            groups.append({"params": [parameter], "weight_decay": decay})
    return groups
