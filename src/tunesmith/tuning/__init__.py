"""Tuning methods: one file each. A method says which parameters train, what is injected, and how it is solved."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from tunesmith.base.choices import Choice
from tunesmith.base.shapes import Int, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.text.batching import Examples


@dataclass(frozen=True)
class Defaults:
    """Good settings of the loop for a method and data size.

    Attributes:
        learning_rate: Peak.
        epochs: Passes over the data.
        batch_size: Sequences in a step.
        patience: Evaluations without a better score before stopping.
        evaluations: Evaluations per run.
    """

    learning_rate: float
    epochs: float
    batch_size: int
    patience: int
    evaluations: int


@dataclass(frozen=True)
class Data:
    """What a method that solves for its parameters directly may use.

    Attributes:
        train: Training examples.
        dev: Dev examples.
        rows: Which features (examples, or tokens of all examples) have a target; all if None.
        targets: Their targets: classes, 0/1 columns, or numbers.
        loss: What to minimise.
        num_outputs: Outputs of the head.
        per_token: Whether the head reads every token.
        score: The dev score of the logits of each dev example.
        dtype: Type to run the encoder in.
        key: What the features depend on besides the examples: fingerprints of weights and tokenizer.
    """

    train: Examples
    dev: Examples
    rows: Int[np.ndarray, "M"] | None
    targets: Tensor
    loss: Literal["softmax", "sigmoid", "squared"]
    num_outputs: int
    per_token: bool
    score: Callable[[list[Tensor]], float]
    dtype: torch.dtype
    key: Callable[[], tuple[str, ...]]


@dataclass(frozen=True)
class Solution:
    """What solving directly found out.

    Attributes:
        facts: For the report and metrics.json.
        tokens: Real tokens that the encoder ran on; 0 when all came from the cache.
    """

    facts: Mapping[str, float | str | bool]
    tokens: int


class Attached:
    """A method on a model: what trains, what must be saved, and the way back.

    Args:
        model: The model, changed by the method.
        trains: Names of the parameters that train; all others are frozen.
    """

    def __init__(self, model: Model, trains: set[str]):
        self.model = model
        self._were = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trains)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What trains, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Every tensor that may differ from the checkpoint: what trains, and fresh parts that stay frozen."""
        fresh = set(self.model.fresh)
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad or name in fresh}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put a saved state back."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def merge(self) -> None:
        """Fold what was injected into the weights of the model; nothing to do where nothing was."""

    def unmerge(self) -> None:
        """Undo `merge`, bit for bit."""

    def detach(self) -> None:
        """Take out what was injected and free the parameters."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._were.get(name, True))


class MethodConfig(Choice, abc.ABC):
    """Settings of a tuning method."""

    saves: ClassVar[Literal["model", "peft", "delta"]]
    """Form of the saved folder: a whole model, a PEFT adapter, or the changed tensors."""

    @abc.abstractmethod
    def attach(self, model: Model, *, seed: int) -> Attached:
        """Put the method on a model.

        Args:
            model: The model with the task's head; it is changed in place.
            seed: Seed of fresh weights.
        """

    @abc.abstractmethod
    def defaults(self, *, size: int, d_model: int) -> Defaults:
        """Good settings of the loop.

        Args:
            size: Training examples.
            d_model: Width of the model.
        """

    def head(self, task_head: HeadConfig) -> HeadConfig:
        """The head to train, from the one that the task and family ask for."""
        return task_head

    def solve(self, attached: Attached, data: Data) -> Solution | None:
        """Find the parameters without the loop; None for methods that train in it."""
        return None


def epochs_for(size: int, *, short: float, long: float) -> float:
    """Passes over the data: ``long`` for up to 2,000 examples, falling to ``short`` at 20,000 and more."""
    if size <= 2_000:
        return long
    if size >= 20_000:
        return short
    share = (size - 2_000) / 18_000
    return round(long + (short - long) * share, 1)
