"""How much memory training takes on one device: weights, gradients and optimiser exactly, activations estimated."""

from dataclasses import astuple, dataclass
from typing import Literal

import torch

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.block import Block
from tunesmith.nn.feedforward._gated import Gated
from tunesmith.nn.head.lm import LM
from tunesmith.nn.transformer import Transformer
from tunesmith.train.cost import Reading, skeleton
from tunesmith.train.optim import OptimiserConfig

MASTER = 4
"""Bytes of a number in weights, gradients and the optimiser's state: they are fp32 whatever is computed in."""
Sharding = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of the parameters.
        buckets: Copies of the gradients that DDP exchanges.
        optimiser: State of the optimiser.
        gathered: Whole weights that a sharded device holds for a while; an estimate.
        activations: What the forward pass of a micro-batch keeps for the backward pass; an estimate.
    """

    weights: int
    gradients: int
    buckets: int
    optimiser: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; for a moment of the backward pass a layer's gradients come on top."""
        return sum(astuple(self))


def plan_memory(
    config: ModelConfig,
    optimiser: OptimiserConfig,
    reading: Reading,
    *,
    num_sequences: int,
    dtype: torch.dtype = torch.bfloat16,
    num_devices: int = 1,
    sharding: Sharding = "ddp",
) -> Memory:
    """Memory of training all weights.

    Args:
        config: The model.
        optimiser: What trains it.
        reading: What it reads of a sequence.
        num_sequences: Sequences in a micro-batch of one device.
        dtype: Type of the activations.
        num_devices: Devices that share the work.
        sharding: ddp: each holds everything; fsdp: each holds its share of each tensor's rows.
    """
    model = skeleton(config)
    shards = num_devices if sharding == "fsdp" else 1
    parts = {name: _shard(parameter, shards) for name, parameter in model.named_parameters()}
    held = sum(part.numel() for part in parts.values())
    buffers = sum(buffer.numel() * buffer.itemsize for buffer in model.buffers())
    state = sum(optimiser.state_numbers(name, part) for name, part in parts.items())
    return Memory(
        weights=MASTER * held + buffers,
        gradients=MASTER * held,
        buckets=MASTER * held if num_devices > 1 and sharding == "ddp" else 0,
        optimiser=MASTER * state,
        gathered=MASTER * _gathered(model) if shards > 1 else 0,
        activations=estimate_activations(model, reading, num_sequences=num_sequences, dtype=dtype),
    )


def estimate_activations(model: Model, reading: Reading, *, num_sequences: int, dtype: torch.dtype) -> int:
    """Bytes that the forward pass of a micro-batch keeps, with attention's weights kept as on a CPU.

    Args:
        model: The model, of any device.
        reading: What it reads of a sequence.
        num_sequences: Sequences in the micro-batch.
        dtype: Type of the activations.
    """
    size, total = dtype.itemsize, 0.0
    both = model.encoder is not None and model.decoder is not None
    for stack in model.stacks:
        decodes = both and stack is model.decoder
        tokens = reading.target_length if decodes else reading.length
        rows = tokens * (reading.predicted if stack is model.trunk else 1.0)
        kept = 3.0 * tokens * stack.config.d_embedding
        for i in range(stack.config.num_layers):
            block = stack.block_at(i)
            assert isinstance(block, Block)
            for asked in reading.runs(tokens, rows, last=i == stack.config.num_layers - 1):
                kept += _block(block, stack, tokens=tokens, rows=asked, memory=reading.length if decodes else 0)
                if size < MASTER:  # each use casts the weights, and keeps what it has cast
                    total += size * sum(weight.numel() for weight in block.parameters() if weight.ndim >= 2)
        total += size * num_sequences * kept
    tokens = reading.target_length if both else reading.length
    for head in model.modules():
        if isinstance(head, LM):
            # the fused loss has the gradient of the output matrix before the backward pass begins
            total += MASTER * head.output.weight.numel()
            total += size * num_sequences * tokens * reading.predicted * 5 * head.output.weight.shape[1]
    return int(total)


def _block(block: Block, stack: Transformer, *, tokens: float, rows: float, memory: float) -> float:
    """Numbers that a block keeps of one sequence: what its products, activations and norms have read.

    Args:
        block: The block.
        stack: Its stack.
        tokens: Tokens that come in.
        rows: Tokens that go through it whole.
        memory: Tokens that cross-attention reads.
    """
    config = stack.config
    width, inner, heads = config.d_model, config.num_heads * config.head_width, config.num_heads
    drops = 1 if config.dropout else 0
    relative = _relative(block, stack)
    # before and after dropout; with relative positions a byte says what fell
    weights = 1 + (0 if not config.attention_dropout else 0.5 if relative else 1)
    found = tokens * width * (2 if config.order == "pre" else 1)  # the input, and normalised
    found += 2 * tokens * inner + (2 if relative else 3) * rows * inner  # keys, values; queries, the output (twice)
    found += weights * heads * rows * tokens
    if memory:
        found += 2 * rows * width + 2 * memory * inner + 3 * rows * inner
        found += weights * heads * rows * memory + drops * rows * width
    ff = (4 if isinstance(block.feedforward, Gated) else 2) + (2 if config.feedforward_dropout else 0)
    found += rows * (2 * width + ff * config.d_ff)  # before and after the norm; inside
    found += rows * width * (0 if config.order == "pre" else 1)  # before the last norm
    return found + 2 * drops * rows * width


def _relative(block: Block, stack: Transformer) -> bool:
    own = block.attention.position
    return stack.embeddings.position.relative if own is None else own.relative


def _shard(parameter: Tensor, shards: int) -> Tensor:
    """What the first device holds of a parameter: rows, rounded up."""
    rows = -(-parameter.shape[0] // shards) if parameter.ndim else 1
    return torch.empty((rows, *parameter.shape[1:]), device="meta") if parameter.ndim else parameter


def _gathered(model: Model) -> int:
    """Numbers of what is in no block, and of two blocks: the one that runs and the one that is fetched for it."""
    blocks = [sum(p.numel() for p in module.parameters()) for module in model.modules() if isinstance(module, Block)]
    return sum(p.numel() for p in model.parameters()) - sum(blocks) + 2 * max(blocks)
