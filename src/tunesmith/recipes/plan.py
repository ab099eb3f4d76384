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
from tunesmith.models.model import Model, ModelConfig
from tunesmith.objectives import Batch, Objective
from tunesmith.recipes.listener import Silent
from tunesmith.recipes.open import open_tokenizer
from tunesmith.recipes.pretrain_settings import PretrainSettings, PretrainTraining
from tunesmith.recipes.start import first_model, tokenizer_of, with_heads
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
        memory: Bytes on one device, in the stage that takes the most.
    """

    name: str
    parameters: Parameters
    memory: Memory


@dataclass(frozen=True)
class Stage:
    """A part of the run whose sequences have one length; several with sequence-length warm-up.

    Attributes:
        share: Share of the budget.
        tokens: Real tokens that are read of a full sequence.
        flops: Operations of training on one sequence, all networks together.
        sequences: In the whole run; None where only minutes end it.
    """

    share: float
    tokens: int
    flops: float
    sequences: float | None


@dataclass(frozen=True)
class Estimate:
    """A run's cost.

    Attributes:
        networks: The model, and what trains beside it.
        stages: Its stages, in order.
        bill: Time and money of the whole run; None where only minutes end it.
    """

    networks: tuple[Network, ...]
    stages: tuple[Stage, ...]
    bill: Bill | None

    @property
    def sequences(self) -> float | None:
        """In the whole run; None where only minutes end it."""
        return None if self.bill is None else sum(_count(stage) for stage in self.stages)

    @property
    def tokens(self) -> float | None:
        """Real tokens of the whole run; None where only minutes end it."""
        return None if self.bill is None else sum(_count(stage) * stage.tokens for stage in self.stages)

    @property
    def flops_per_token(self) -> float:
        """Operations of training, for each real token: the mean over the run."""
        tokens = sum(_count(stage) * stage.tokens for stage in self.stages)
        return sum(_count(stage) * stage.flops for stage in self.stages) / tokens

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
            "tokens": self.tokens,
            **({} if self.bill is None else asdict(self.bill)),
        }


def estimate(
    settings: PretrainSettings, *, num_devices: int, flops_per_second: float, price_per_hour: float
) -> Estimate:
    """What a run with these settings would cost; dropout, the optimiser's own work and reading the data are left out.

    Args:
        settings: All settings; a vocabulary that is still to be made is taken to be as large as they allow.
        num_devices: Devices that share the work.
        flops_per_second: What one device really does.
        price_per_hour: Of one device.

    Raises:
        UserError: The objective does not fit the model, or there is no such tokenizer or checkpoint.
    """
    vocabulary = _invented(settings)
    with torch.device("meta" if settings.model.checkpoint is None else "cpu"):
        model = first_model(settings, vocabulary, Silent())
        model, objective = with_heads(model, settings, vocabulary, Silent())
    read: dict[str, list[tuple[ModelConfig, Reading]]] = {}
    stages = []
    for share, length in _lengths(settings):
        batch = _one_sequence(settings, objective, vocabulary, length)
        model_reading, other_reading = _readings(model, objective, batch)
        found = {"model": (model.config, model_reading)}
        for name, network in objective.networks.items():
            if isinstance(network, Model):
                found[name] = (network.config, other_reading)
        for name, pair in found.items():
            read.setdefault(name, []).append(pair)
        flops = sum(count_flops(config, reading).training for config, reading in found.values())
        begin = sum(stage.share for stage in stages)
        sequences = _sequences(settings, begin, begin + share, batch.num_tokens)
        stages.append(Stage(share, batch.num_tokens, flops, sequences))
    total = None if stages[0].sequences is None else sum(_count(stage) * stage.flops for stage in stages)
    return Estimate(
        networks=tuple(_network(name, pairs, settings, num_devices) for name, pairs in read.items()),
        stages=tuple(stages),
        bill=None
        if total is None
        else bill(total, flops_per_second=flops_per_second, num_devices=num_devices, price_per_hour=price_per_hour),
    )


def _count(stage: Stage) -> float:
    """Sequences of a stage; where only minutes end the run, a number in proportion: its share is of the time."""
    return stage.share / stage.flops if stage.sequences is None else stage.sequences


def _lengths(settings: PretrainSettings) -> list[tuple[float, int]]:
    """Share of the budget, and tokens of a sequence, of each stage."""
    data = settings.data
    if data.short_tokens is None or not data.short_share:
        return [(1.0, data.max_tokens)]
    return [(data.short_share, data.short_tokens), (1 - data.short_share, data.max_tokens)]


def _network(
    name: str, pairs: list[tuple[ModelConfig, Reading]], settings: PretrainSettings, num_devices: int
) -> Network:
    train = settings.train
    memories = [
        plan_memory(
            config,
            train.optimiser,
            reading,
            num_sequences=max(1, train.micro_batch_tokens // max(1, reading.length)),
            num_devices=num_devices,
            sharding=train.engine,
        )
        for config, reading in pairs
    ]
    return Network(name, count_parameters(pairs[0][0]), max(memories, key=lambda memory: memory.total))


def _one_sequence(settings: PretrainSettings, objective: Objective, vocabulary: Vocabulary, tokens: int) -> Batch:
    """A full sequence of two texts, as the objective makes it."""
    frame = vocabulary.frame
    room = settings.objective.raw_tokens(tokens) - frame.pair_size
    draw = np.random.default_rng(0)
    texts = [draw.integers(_num_special(vocabulary.size), vocabulary.size, n) for n in (room - room // 2, room // 2)]
    sample = frame.pair([texts[0]], [texts[1]], label=0)
    return objective.prepare([Drawn(sample, numpy_stream("plan"))])


def _readings(model: Model, objective: Objective, batch: Batch) -> tuple[Reading, Reading]:
    """What the model reads of a sequence, and what further networks do."""
    source = batch.source.layout.num_tokens
    target = 0 if batch.target is None else batch.target.layout.num_tokens
    predicted = sum(objective.targets(batch).values()) if batch.rows is None else len(batch.rows)
    share = min(1.0, predicted / (target or source))
    finds = model.config.head is not None and model.config.head.choice_name() == "rtd"  # it reads every token
    if batch.hidden is not None and model.trunk.embeddings.query is not None:
        return Reading(source, target, share, streams=2), Reading(source, target, share)
    return Reading(source, target, 1.0 if finds else share), Reading(source, target, share)


def _sequences(settings: PretrainSettings, begin: float, end: float, tokens: int) -> float | None:
    """Sequences between two shares of the budget; None where only minutes end the run."""
    train = settings.train
    limits = []
    if train.max_steps is not None:
        limits.append(train.max_steps * (_grown(train, end) - _grown(train, begin)))
    if train.tokens is not None:
        limits.append(train.tokens * (end - begin) / tokens)
    return min(limits) if limits else None


def _grown(train: PretrainTraining, share: float) -> float:
    """The integral of the batch size over this share of the budget: it grows evenly from its start."""
    less = train.batch_size - (train.batch_start or train.batch_size)
    growing = min(share, train.batch_warmup)
    return train.batch_size * share - (less * (growing - growing**2 / 2 / train.batch_warmup) if growing else 0)


def _invented(settings: PretrainSettings) -> Vocabulary:
    given = tokenizer_of(settings)
    size = settings.vocabulary.vocab_size if given is None else open_tokenizer(given).vocab_size
    special = np.arange(size) < _num_special(size)
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


def _num_special(size: int) -> int:
    return min(_SPECIAL, size // 2)


def parts_of(parameters: Parameters) -> Mapping[str, int]:
    """The parts that are not empty."""
    return {name: value for name, value in asdict(parameters).items() if value}
