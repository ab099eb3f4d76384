"""What BART and T5 share: one token table under many names, and whether the output is that table too."""

from collections.abc import Mapping

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Foreign

_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight")
_HEAD = "lm_head.weight"


def one_table(tensors: dict[str, Tensor], config: Foreign) -> dict[str, Tensor]:
    """The token table under the one name ``shared``, whichever of its names the file has; no copy of it as the head.

    Args:
        tensors: Tensors by their names in a file.
        config: config.json as settled by `untied`.

    Raises:
        CheckpointError: Encoder and decoder have different tables.
    """
    found = _tables(tensors)
    names = [name for _, name in found]
    stacks = [name for end, name in found if end != "shared.weight"] or names
    if not found:
        if _HEAD not in tensors or config.get("tie_word_embeddings") is False:
            return tensors
        return {("shared.weight" if name == _HEAD else name): tensor for name, tensor in tensors.items()}
    table = tensors[stacks[0]]
    rest = dict(found).get("shared.weight") if len(stacks) == 1 else None
    for other in (stacks[-1], rest):
        if other is not None and not _same(tensors[other], table):
            raise CheckpointError(
                f"{other}: is not the same as {stacks[0]}, but this family is supported with one token table only"
            )
    end, name = found[0]
    shared = name.removesuffix(end) + "shared.weight"
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    if config.get("tie_word_embeddings") is not False:
        kept.pop(_HEAD, None)
    return {shared: table, **kept}


def untied(tensors: Mapping[str, Tensor]) -> bool | None:
    """Whether the output matrix differs from the token table; None where the file holds only one of them."""
    found = _tables(tensors)
    if _HEAD not in tensors or not found:
        return None
    return not _same(tensors[_HEAD], tensors[found[0][1]])


def _tables(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The token tables in a file: the end of the name, and the name."""
    return [(end, name) for end in _TABLES for name in tensors if name == end or name.endswith(f".{end}")]


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))
