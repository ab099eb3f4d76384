"""One update of a step: which loss terms move which parameters, and how."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Update:
    """One update of a step.

    Attributes:
        name: Name of the phase.
        terms: Loss terms, with their weights.
        parameters: What it updates, by name.
        optimiser: How.
    """

    name: str
    terms: Mapping[str, float]
    parameters: Mapping[str, torch.nn.Parameter]
    optimiser: torch.optim.Optimizer
