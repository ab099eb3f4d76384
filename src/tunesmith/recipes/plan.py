"""What a recipe would cost, before anything is paid: parameters, memory, operations, time and money.

The model is built without memory; an invented sequence goes through the objective's own preparation, so that what is
read and predicted is counted, not assumed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tunesmith.base.random import numpy_stream
from tunesmith.models._fresh import fresh_model
from tunesmith.models.model import Model, ModelConfig
from tunesmith.objectives import Batch, Objective
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.text.sample import Drawn, Frame, Vocabulary
from tunesmith.train.cost import Bill, Parameters, Reading, bill, count_flops, count_parameters
from tunesmith.train.memory import Memory, plan_memory

_SPECIAL = 110
"""Ids of the invented vocabulary that are special tokens: a mask, ends, and T5's sentinels."""


@dataclass(frozen=True)
class Network:
    """One of the networks that train.

    Attributes:
        name: ``model``, or that of a further network.
        parameters: Numbers that train, by part.
        flops: Operations of training on one sequence.
        memory: Bytes on one device.
    """

    name: str
    parameters: Parameters
    flops: float
    memory: Memory


@dataclass(frozen=True)
class Estimate:
    """A run's cost.

    Attributes:
        networks: The model, and what trains beside it.
        tokens_per_sequence: Real tokens that are read of a full sequence.
        sequences: In the whole run; None where only minutes end it.
        bill: Time and money of the whole run; None where only minutes end it.
    """

    networks: tuple[Network, ...]
    tokens_per_sequence: int
    sequences: float | None
    bill: Bill | None

    @property
    def flops_per_token(self) -> float:
        """Operations of training, for each real token."""
        return sum(network.flops for network in self.networks) / self.tokens_per_sequence

    @property
    def memory_bytes(self) -> int:
        """On one device, all networks together."""
        return sum(network.memory.total for network in self.networks)

    def as_tree(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "networks": {
                network.name: {
                    "parameters": {**asdict(network.parameters), "total": network.parameters.total},
                    "memory_bytes": {**asdict(network.memory), "total": network.memory.total},
                }
                for network in self.networks
            },
            "flops_per_token": self.flops_per_token,
            "memory_bytes": self.memory_bytes,
            "sequences": self.sequences,
            "tokens": None if self.sequences is None else self.sequences * self.tokens_per_sequence,
            **({} if self.bill is None else asdict(self.bill)),
        }


def estimate(
    settings: PretrainSettings, *, num_devices: int, flops_per_second: float, price_per_hour: float
) -> Estimate:
    """What a run with these settings would cost; dropout, the optimiser's own work and reading the data are left out.

    Args:
        settings: All settings; the vocabulary is taken to be as large as they allow.
        num_devices: Devices that share the work.
        flops_per_second: What one device really does.
        price_per_hour: Of one device.

    Raises:
        SettingError: The objective does not fit the model.
    """
    vocabulary = _invented(settings)
    with torch.device("meta"):
        model, _ = fresh_model(settings.model.preset, changes=settings.model.changes(), vocabulary=vocabulary, seed=0)
        head = settings.objective.head(model)
        model = model if head is None else model.with_head(head)
        longest = settings.data.max_tokens
        objective = settings.objective.build(model, vocabulary, max_tokens=longest, seed=0)
    batch = _one_sequence(settings, objective, vocabulary)
    model_reading, other_reading = _readings(model, objective, batch)
    configs = {"model": (model.config, model_reading)}
    for name, network in objective.networks.items():
        if isinstance(network, Model):
            configs[name] = (network.config, other_reading)
    networks = tuple(
        _network(name, config, reading, settings, num_devices) for name, (config, reading) in configs.items()
    )
    sequences = _sequences(settings, batch.num_tokens)
    total = sum(network.flops for network in networks)
    return Estimate(
        networks=networks,
        tokens_per_sequence=batch.num_tokens,
        sequences=sequences,
        bill=None
        if sequences is None
        else bill(
            total * sequences,
            flops_per_second=flops_per_second,
            num_devices=num_devices,
            price_per_hour=price_per_hour,
        ),
    )


def _network(name: str, config: ModelConfig, reading: Reading, settings: PretrainSettings, num_devices: int) -> Network:
    train = settings.train
    memory = plan_memory(
        config,
        train.optimiser,
        reading,
        num_sequences=max(1, train.micro_batch_tokens // max(1, reading.length)),
        num_devices=num_devices,
        sharding=train.engine,
    )
    return Network(name, count_parameters(config), count_flops(config, reading).training, memory)


def _one_sequence(settings: PretrainSettings, objective: Objective, vocabulary: Vocabulary) -> Batch:
    """A full sequence of two texts, as the objective makes it."""
    frame = vocabulary.frame
    room = settings.objective.raw_tokens(settings.data.max_tokens) - frame.pair_size
    draw = np.random.default_rng(0)
    texts = [draw.integers(_SPECIAL, vocabulary.size, n) for n in (room - room // 2, room // 2)]
    sample = frame.pair([texts[0]], [texts[1]], label=0)
    return objective.prepare([Drawn(sample, numpy_stream("plan"))])


def _readings(model: Model, objective: Objective, batch: Batch) -> tuple[Reading, Reading]:
    """What the model reads of a sequence, and what further networks do."""
    source = batch.source.layout.num_tokens
    target = 0 if batch.target is None else batch.target.layout.num_tokens
    predicted = sum(objective.targets(batch).values()) if batch.rows is None else len(batch.rows)
    share = min(1.0, predicted / (target or source))
    finds = model.config.head is not None and model.config.head.choice_name() == "rtd"  # it reads every token
    return Reading(source, target, 1.0 if finds else share), Reading(source, target, share)


def _sequences(settings: PretrainSettings, tokens: int) -> float | None:
    train = settings.train
    limits = []
    if train.max_steps is not None:
        first = train.batch_start or train.batch_size
        grown = train.batch_size - (train.batch_size - first) / 2 * train.batch_warmup
        limits.append(train.max_steps * grown)
    if train.tokens is not None:
        limits.append(train.tokens / tokens)
    return min(limits) if limits else None


def _invented(settings: PretrainSettings) -> Vocabulary:
    size = settings.vocabulary.vocab_size
    special = np.arange(size) < _SPECIAL
    return Vocabulary(
        size=size,
        special=special,
        begins_word=np.ones(size, dtype=bool),
        mask=3,
        pad=0,
        begin=1,
        end=2,
        sentinels=tuple(range(_SPECIAL - 1, _SPECIAL - 101, -1)),
        sentence_ends=np.zeros(size, dtype=bool),
        frame=Frame((1,), (2,), (2,), (2,)),
    )


def parts_of(parameters: Parameters) -> Mapping[str, int]:
    """The parts that are not empty."""
    return {name: value for name, value in asdict(parameters).items() if value}
