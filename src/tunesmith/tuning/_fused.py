"""LoRA updates of maps that transformers keeps as one matrix, such as GPT-2's ``c_attn``.

One update of the whole, W + s B A, is one of each part with the same A and the part's rows of B. Updates of the parts
are one of the whole with the A's one below the other and the B's as blocks: the same products, the rank is the sum.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.models import Fused
from tunesmith.models._keys import foreign_name, stack_of
from tunesmith.models.model import Model

RANKS = "tunesmith_ranks"
"""Key of the safetensors header: ranks of the parts of each whole, by which our own adapters come back as they were."""


@dataclass(frozen=True)
class Pair:
    """An update, B A, and its strength.

    Attributes:
        a: (R, D).
        b: (F, R).
        scale: Factor.
    """

    a: Float[Tensor, "R D"]
    b: Float[Tensor, "F R"]
    scale: float


def whole_and_part(site: str, model: Model) -> tuple[str, str]:
    """Foreign module (with ``@``) that a site is in, and its part of it; empty where it is all of it.

    Raises:
        KeyError: The site is no module in transformers.
    """
    head = model.config.head.choice_name() if model.config.head else None
    whole, _, part = foreign_name(site, model.family, head).partition("#")
    return whole, part


def fused_of(whole: str, model: Model) -> Fused | None:
    """The table's row of a fused foreign module; None for plain ones."""
    block = "{i}"
    name = ".".join(block if piece.isdigit() else piece for piece in whole.split("."))
    return next((fused for fused in model.family.fused if fused.name == name), None)


def is_turned(fused: Fused, model: Model) -> bool:
    """Whether the foreign matrix is [in, out], as that of Conv1D."""
    size = model.config.trunk.d_model
    like = [torch.zeros(size, 1) for _ in fused.parts]
    return fused.join(like, stack_of(fused, model.family, model.config.stacks)).shape[0] == 1


def stack(pairs: Mapping[str, Pair], sizes: Sequence[int], fused: Fused, model: Model) -> Pair:
    """One update of the whole from those of its parts.

    Args:
        pairs: Updates by part; parts may be missing.
        sizes: Rows of each part, in order.
        fused: The whole.
        model: The model.
    """
    scale = next(iter(pairs.values())).scale
    blocks = []
    for part, size in zip(fused.parts, sizes, strict=True):
        pieces = []
        for name, pair in pairs.items():
            own = pair.b * (pair.scale / scale) if pair.scale != scale else pair.b
            pieces.append(own if name == part else own.new_zeros(size, own.shape[1]))
        blocks.append(torch.cat(pieces, 1))
    rows = _rows(sizes, fused, model)
    return Pair(torch.cat([pair.a for pair in pairs.values()]), torch.cat(blocks)[rows], scale)


def unstack(
    a: Tensor, b: Tensor, sizes: Sequence[int], fused: Fused, model: Model, *, ranks: Mapping[str, int] | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each part.

    Args:
        a: A of the whole.
        b: B of the whole.
        sizes: Rows of each part, in order.
        fused: The whole.
        model: The model.
        ranks: Rank of each part as `stack` laid them; where they do not fit, A goes to all parts.
    """
    ordered = torch.empty_like(b)
    ordered[_rows(sizes, fused, model)] = b
    parts = dict(zip(fused.parts, ordered.split(list(sizes)), strict=True))
    if ranks is None or sum(ranks.values()) != len(a) or not set(ranks) <= set(parts):
        return {part: (a, piece.contiguous()) for part, piece in parts.items()}
    found, rest = {}, {part: piece.clone() for part, piece in parts.items()}
    first = 0
    for part, rank in ranks.items():
        found[part] = (a[first : first + rank].contiguous(), parts[part][:, first : first + rank].contiguous())
        rest[part][:, first : first + rank] = 0
        first += rank
    if any(piece.any() for piece in rest.values()):  # another program trained it on
        return {part: (a, piece.contiguous()) for part, piece in parts.items()}
    return found


def ranks_in(metadata: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """What the header says of ranks; nothing where it says nothing sensible."""
    try:
        found = json.loads(metadata.get(RANKS, "{}"))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: ranks
        for name, ranks in found.items()
        if isinstance(ranks, dict) and all(isinstance(rank, int) and rank > 0 for rank in ranks.values())
    }


def _rows(sizes: Sequence[int], fused: Fused, model: Model) -> Int[Tensor, "F"]:
    """Row of the parts, one below the other, that each row of the whole is."""
    numbers = torch.arange(sum(sizes)).split(list(sizes))
    return fused.join(list(numbers), stack_of(fused, model.family, model.config.stacks))
