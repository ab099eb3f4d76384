"""Features of the frozen model: what a linear head would read, for every example, in one pass."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head.classify import Classify
from tunesmith.nn.pooling import pool
from tunesmith.text.batching import Examples, cut_by_tokens, pack


@dataclass(frozen=True)
class Reading:
    """Which vector stands for an example.

    Attributes:
        pooling: ``first``, ``last``, ``mean``, ``head`` (what the output layer of the model's own head reads), or
            ``tokens`` (every token by itself).
        layer: Blocks to run; all if None.
    """

    pooling: str
    layer: int | None = None


@torch.no_grad()
def extract(model: Model, examples: Examples, reading: Reading, *, dtype: torch.dtype) -> Float[np.ndarray, "M D"]:
    """Features in fp32, in the order of the examples (of their tokens for ``tokens``).

    Args:
        model: The model; its head is used for ``head`` only.
        examples: What to run.
        reading: Which vector to take.
        dtype: Type to run the encoder in.
    """
    read = _reader(model, reading)
    per_token = reading.pooling == "tokens"
    width = model.config.trunk.d_model
    found = np.empty((examples.num_tokens if per_token else len(examples), width), dtype=np.float32)
    for indices in cut_by_tokens(range(len(examples)), examples.lengths, max_tokens=4096):
        batch = pack(examples, indices, device=model.device)
        rows = {"first": batch.layout.starts, "last": batch.layout.ends}.get(_pooling(model, reading))
        hidden = model.hidden(batch.token_ids, batch.layout, dtype=dtype, num_layers=reading.layer, rows=rows)
        hidden = hidden if rows is not None else hidden[: batch.layout.num_tokens]
        values = (hidden if rows is not None or per_token else pool(hidden, batch.layout, "mean")).float()
        places = examples.rows(batch.indices) if per_token else np.array(batch.indices)
        found[places] = read(values).cpu().numpy()
    return found


def _pooling(model: Model, reading: Reading) -> str:
    if reading.pooling == "head" and model.head is not None:
        return model.head.reads
    return reading.pooling


def _reader(model: Model, reading: Reading) -> Callable[[Tensor], Tensor]:
    if reading.pooling == "head" and isinstance(model.head, Classify):
        head = model.head
        return lambda x: head.hidden_vector(x, None)
    return lambda x: x
