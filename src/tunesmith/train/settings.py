"""Settings of the training loop."""

from typing import Annotated

import pydantic

from tunesmith.base import choices
from tunesmith.base.config import Config
from tunesmith.train.precision import Precision
from tunesmith.train.track import TrackConfig

Positive = Annotated[float, pydantic.Field(gt=0)]
Count = Annotated[int, pydantic.Field(ge=1)]


class LoopSettings(Config):
    """What all training has in common."""

    epochs: Positive | None = pydantic.Field(default=None, description="Passes over the training data, at most.")
    max_steps: Count | None = pydantic.Field(default=None, description="Optimiser steps, at most.")
    minutes: Positive | None = pydantic.Field(
        default=None, description="Training time, at most; the learning rate lands at zero when it is up."
    )
    warmup: Annotated[float, pydantic.Field(ge=0, lt=1)] = pydantic.Field(
        default=0.06, description="Share of the run in which the learning rate rises."
    )
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=0.01, description="Weight decay of matrices (AdamW); biases and norms have none."
    )
    max_grad_norm: Positive = pydantic.Field(default=1.0, description="Gradients are clipped to this norm.")
    patience: Count | None = pydantic.Field(
        default=None, description="Stop after this many evaluations without a better dev score."
    )
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = pydantic.Field(
        default=0, description="Seed of fresh weights, data order and dropout."
    )
    precision: Precision = pydantic.Field(
        default="auto", description="bf16 where the machine is faster with it, else fp32; master weights are fp32."
    )
    device: str | None = pydantic.Field(default=None, description="cpu, cuda or cuda:N; CUDA if present.")
    micro_batch_tokens: Count = pydantic.Field(
        default=4096, description="Tokens of a micro-batch, at most; an optimiser step is cut into as many as it needs."
    )
    checkpoint_seconds: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=60.0, description="Time between checkpoints; there is one at each evaluation as well."
    )
    track: Annotated[pydantic.SerializeAsAny[TrackConfig], choices.chosen("track")] | None = pydantic.Field(
        default=None, description="Where curves are written during the run, as tensorboard; none by default."
    )


class TrainSettings(LoopSettings):
    """How to train; what is not set is chosen by method and data size."""

    learning_rate: Positive | None = pydantic.Field(default=None, description="Peak learning rate.")
    batch_size: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] | None = pydantic.Field(
        default=None, description="Sequences in an optimiser step."
    )
    evaluations: Annotated[int, pydantic.Field(ge=1, le=100_000)] | None = pydantic.Field(
        default=None, description="Evaluations on the dev split per run."
    )
