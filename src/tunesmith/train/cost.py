"""What a run costs, from its settings alone: weights by part, floating-point operations, time and money.

Nothing is allocated: the model is built on torch's meta device. Memory is in `memory`.
"""

from dataclasses import astuple, dataclass
from typing import Literal

import torch

from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.attention import Attention
from tunesmith.nn.block import Block
from tunesmith.nn.head import Head
from tunesmith.nn.head.lm import LM
from tunesmith.nn.transformer import MOST, Transformer

BACKWARD = 2
"""Products of the backward pass for each of the forward pass: one for the weights, one for the input."""


@dataclass(frozen=True)
class Parameters:
    """Numbers that train, by part; tied ones count once, where they are first.

    Attributes:
        embeddings: Tables of tokens, segments and positions, with the map behind them.
        attention: Its four maps, and what position encodings have in each layer.
        feedforward: Its maps.
        norms: All norms of the stacks.
        convolution: DeBERTa's.
        head: The head, its norm too.
    """

    embeddings: int = 0
    attention: int = 0
    feedforward: int = 0
    norms: int = 0
    convolution: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass of one sequence; a product and its sum are two.

    Attributes:
        maps: Of the stacks' matrices: two for each weight and each token that goes through it.
        scores: Of attention over the documents' lengths, with what relative positions add.
        head: Of the head, on what it reads.
    """

    maps: float
    scores: float
    head: float

    @property
    def forward(self) -> float:
        """Of a forward pass."""
        return self.maps + self.scores + self.head

    @property
    def training(self) -> float:
        """Of a forward and a backward pass, three times as many."""
        return (1 + BACKWARD) * self.forward


@dataclass(frozen=True)
class Reading:
    """What a model reads of one sequence.

    Attributes:
        length: Tokens that the encoder, or the only stack, reads.
        target_length: Tokens that the decoder of an encoder-decoder reads.
        predicted: Share of the last stack's tokens that are predicted: 0.15 for BERT's masks, (T - 1) / T for CLM.
        streams: 2 where predicted tokens go through all blocks once more, in a query stream (XLNet).
    """

    length: int
    target_length: int = 0
    predicted: float = 1.0
    streams: Literal[1, 2] = 1

    def runs(self, tokens: float, rows: float, *, last: bool) -> list[float]:
        """How many rows go through a block whole, for each time that it runs.

        Args:
            tokens: Tokens of the stack.
            rows: Those that are wanted of its last block.
            last: Whether it is that.
        """
        if self.streams == 2:  # nobody reads the content behind the last queries
            queries = tokens * self.predicted
            return [queries] if last else [tokens, queries]
        return [rows if last else tokens]


@dataclass(frozen=True)
class Bill:
    """Time and money.

    Attributes:
        seconds: On the clock.
        device_hours: Over all devices.
        price: In the currency of the price that was given.
    """

    seconds: float
    device_hours: float
    price: float


def skeleton(config: ModelConfig) -> Model:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return Model(config)


def count_parameters(config: ModelConfig) -> Parameters:
    """Numbers that train, by part."""
    found = dict.fromkeys(Parameters.__dataclass_fields__, 0)
    for name, parameter in skeleton(config).named_parameters():
        found[part_of(name)] += parameter.numel()
    return Parameters(**found)


def part_of(name: str) -> str:
    """The part, a field of `Parameters`, that the parameter of a name belongs to."""
    modules = name.split(".")[:-1]
    if modules[0] == "head":
        return "head"
    if modules[-1] == "norm" or modules[-1].endswith("_norm"):
        return "norms"
    if "blocks" in modules:
        return "feedforward" if "feedforward" in modules else "attention"
    return "convolution" if "convolution" in modules else "embeddings"


def count_flops(config: ModelConfig, reading: Reading) -> Flops:
    """Operations of a forward pass as our own code runs it, for one sequence that is one document.

    The last block runs its queries and its feed-forward layer on predicted tokens only (on all where nearly all are
    predicted), and the head does. Attention computes all pairs of a document, causal or not. Not counted: padding of
    attention's bins, what is not a matrix product, and maps that positions go through once for a whole batch.
    """
    model = skeleton(config)
    maps = scores = 0.0
    for stack in model.stacks:
        decodes = stack is model.decoder and model.encoder is not None
        tokens = reading.target_length if decodes else reading.length
        rows = tokens * (reading.predicted if stack is model.trunk and reading.predicted <= MOST else 1.0)
        memory = reading.length if decodes else 0
        if stack.embeddings.project is not None:
            maps += tokens * _weights(stack.embeddings.project)
        if stack.convolution is not None:
            maps += tokens * _weights(stack.convolution)
        for i in range(stack.config.num_layers):
            block = stack.block_at(i)
            assert isinstance(block, Block)
            for asked in reading.runs(tokens, rows, last=i == stack.config.num_layers - 1):
                maps += _block_maps(block, tokens=tokens, rows=asked, memory=memory)
                scores += asked * _scores(stack, tokens, memory)
    tokens = reading.target_length if model.encoder is not None and model.decoder is not None else reading.length
    head = 0.0 if model.head is None else _head(model.head, tokens=tokens, rows=tokens * reading.predicted)
    return Flops(maps=2 * maps, scores=2 * scores, head=2 * head)


def bill(flops: float, *, flops_per_second: float, num_devices: int = 1, price_per_hour: float = 0.0) -> Bill:
    """Time and money of so many operations.

    Args:
        flops: Of the whole run.
        flops_per_second: What one device really does, not what its maker says it could.
        num_devices: Devices that share the work.
        price_per_hour: Of one device.
    """
    seconds = flops / flops_per_second / num_devices
    hours = seconds * num_devices / 3600
    return Bill(seconds=seconds, device_hours=hours, price=hours * price_per_hour)


def _block_maps(block: Block, *, tokens: float, rows: float, memory: float) -> float:
    """Products of a block's maps with tokens."""
    found = rows * _weights(block.feedforward)
    for attention, read in ((block.attention, tokens), (block.cross_attention, memory)):
        if isinstance(attention, Attention):
            found += rows * (_weights(attention.query) + _weights(attention.output))
            found += read * (_weights(attention.key) + _weights(attention.value))
    return found


def _scores(stack: Transformer, tokens: int, memory: int) -> float:
    """Products of one query with keys, of its weights with values, and of both with relative positions."""
    config = stack.config
    width = config.num_heads * config.head_width
    return width * (2 * (tokens + memory) + config.position.width(tokens))


def _head(head: Head, *, tokens: float, rows: float) -> float:
    found = 0.0
    for name, module in head.named_modules():
        if isinstance(module, torch.nn.Linear):
            # the questions about a whole document are put to one vector of it
            once = head.reads != "all" or name in ("pool", "pair")
            found += _weights(module) if once else rows * _weights(module)
        if isinstance(module, LM):
            found += rows * module.output.weight.numel()
    return found


def _weights(module: torch.nn.Module) -> int:
    """Numbers in a module's matrices."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)
