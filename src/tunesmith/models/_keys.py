"""From foreign tensor names to ours and back, by a family's tables.

Foreign names are kept in one form: ``@`` in place of the base prefix, whether the file had it or not; a part of a
fused tensor has ``#`` and the part's name behind the tensor's: ``@h.0.attn.c_attn#query.weight``.
"""

import re
from collections.abc import Mapping

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, Stacks
from tunesmith.nn.transformer import TransformerConfig

_JUNK = ("position_ids", "embeddings.token_type_ids")
_OLD_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def normalise(tensors: Mapping[str, Tensor], family: Family, config: Foreign, *, prefix: str) -> dict[str, Tensor]:
    """File names in the one form: old names, absent prefixes, stray buffers and repeated tensors are seen to.

    Args:
        tensors: Tensors by their names in a file.
        family: The tables.
        config: config.json, for families that must look at it.
        prefix: The base prefix that the file's architecture has.
    """
    if family.clean is not None:
        tensors = family.clean(dict(tensors), config)
    prefix = prefix + "." if prefix else ""
    bare = not prefix or not any(name.startswith(prefix) for name in tensors)
    tables = [*family.keys.values(), *(key for table in family.heads.values() for key in table.keys.values())]
    first_parts = {re.split(r"[.#]", key[1:])[0] for key in tables if key.startswith("@")} | {"pooler"}
    renamed = {} if family.renamed is None else {theirs: ours for ours, theirs in family.renamed(config).items()}
    found = {}
    for name, tensor in tensors.items():
        if name.endswith((*_JUNK, *family.junk)):
            continue
        for old, new in _OLD_NORM.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if prefix and name.startswith(prefix):
            name = "@" + name.removeprefix(prefix)
        elif bare and name.partition(".")[0] in first_parts:
            name = "@" + name
        found[rename(name, renamed)] = tensor
    for bias, again in twofold_biases(family).items():
        if again in found:  # the output bias, stored once or twice: this is the one that computes
            found[bias] = found.pop(again)
    for again, name in family.repeat.items():
        if again in found and name not in found:
            found[name] = found[again]
        found.pop(again, None)
    return found


def twofold_biases(family: Family) -> dict[str, str]:
    """Output biases that BERT's kind of head has under two names: the plain one to that of the output layer."""
    named = {key for table in family.heads.values() for key in table.keys.values()}
    stems = [key.removesuffix("decoder") for key in named if key.endswith("decoder")]
    return {f"{stem}bias": f"{stem}decoder.bias" for stem in stems if f"{stem}bias" in named}


def rename(name: str, renamed: Mapping[str, str]) -> str:
    """A tensor's name with its module, or the module around it, renamed."""
    for old, new in renamed.items():
        if name == old or name.startswith(old + "."):
            return new + name.removeprefix(old)
    return name


def split_fused(tensors: Mapping[str, Tensor], family: Family, stacks: Stacks, *, source: str) -> dict[str, Tensor]:
    """Fused tensors as their parts.

    Raises:
        CheckpointError: One has a shape that cannot be split.
    """
    found = {}
    for name, tensor in tensors.items():
        for fused in family.fused:
            tail = _tail(name, fused.name)
            if tail is not None:
                base = name.removesuffix(tail)
                try:
                    parts = fused.split(tensor, stack_of(fused, family, stacks))
                except (RuntimeError, ValueError):
                    shape = list(tensor.shape)
                    raise CheckpointError(
                        f"{source} {name.replace('@', '')}: has shape {shape}, which does not fit config.json"
                    ) from None
                found |= {f"{base}#{part}{tail}": piece for part, piece in zip(fused.parts, parts, strict=True)}
                break
        else:
            found[name] = tensor
    return found


def join_fused(tensors: Mapping[str, Tensor], family: Family, stacks: Stacks) -> dict[str, Tensor]:
    """The parts of fused tensors as one again."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        base, mark, rest = name.partition("#")
        if not mark:
            found[name] = tensor
            continue
        part, dot, tail = rest.partition(".")
        fused = next(f for f in family.fused if _tail(base + dot + tail, f.name) is not None and part in f.parts)
        whole = base + dot + tail
        if part == fused.parts[0]:
            pieces = [tensors[f"{base}#{other}{dot}{tail}"] for other in fused.parts]
            found[whole] = fused.join(pieces, stack_of(fused, family, stacks)).contiguous()
    return found


def _tail(name: str, pattern: str) -> str | None:
    """``.weight`` and the like behind a name that matches the pattern; None where it does not match."""
    match = re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"\d+") + r"(\.weight|\.bias|)", name)
    return match[1] if match else None


def stack_of(fused: Fused, family: Family, stacks: Stacks) -> TransformerConfig:
    """Settings of the stack that a fused tensor belongs to."""
    ours = next((ours for ours, theirs in family.keys.items() if theirs.startswith(fused.name + "#")), "")
    stack = stacks.encoder if ours.startswith("encoder") else stacks.decoder
    found = stack or stacks.decoder or stacks.encoder
    assert found is not None
    return found


def foreign_name(name: str, family: Family, head: str | None) -> str:
    """The foreign name (with ``@``) of one of our parameters or modules, such as ``encoder.blocks.0.attention.query``.

    Raises:
        KeyError: The family has no such part.
    """
    pieces = name.split(".")
    block = ""
    if len(pieces) > 2 and pieces[1] == "blocks":
        block, pieces[2] = pieces[2], "{i}"
    table = family.keys
    if pieces[0] == "head":
        table = table | {f"head.{ours}": theirs for ours, theirs in family.heads[head or ""].keys.items()}
    for length in range(len(pieces), 0, -1):
        key = ".".join(pieces[:length])
        if key in table:
            return ".".join([table[key], *pieces[length:]]).replace("{i}", block)
    raise KeyError(name)


def our_name(foreign: str, family: Family, head: str | None) -> str | None:
    """Our name of a foreign module or parameter (with ``@``); None where the family has none."""
    table = dict(family.keys)
    if head is not None:
        table |= {f"head.{ours}": theirs for ours, theirs in family.heads[head].keys.items()}
    for ours, theirs in table.items():
        before, holds_block, after = theirs.partition("{i}")
        if not foreign.startswith(before):
            continue
        rest = foreign.removeprefix(before)
        if holds_block:
            block, dot, rest = rest.partition(".")
            if not block.isdigit() or not (dot + rest).startswith(after):
                continue
            rest = (dot + rest).removeprefix(after)
            ours = ours.replace("{i}", block)
        if rest == "" or rest.startswith("."):
            return f"{ours}{rest}"
    return None


def with_prefix(name: str, family: Family, *, bare: bool, prefix: str | None = None) -> str:
    """A foreign name as it stands in a file."""
    prefix = family.prefix if prefix is None else prefix
    return name.replace("@", "" if bare or not prefix else prefix + ".", 1)
