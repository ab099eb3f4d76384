"""From foreign tensor names to ours and back, by a family's tables.

Foreign names are kept in one form: ``@`` in place of the base prefix, whether the file had it or not.
"""

from collections.abc import Mapping

from tunesmith.base.shapes import Tensor
from tunesmith.models import Family

_JUNK = ("position_ids", "embeddings.token_type_ids")
_OLD_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def normalise(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """File names in the one form: old ``gamma`` and ``beta``, absent prefixes and stray buffers are seen to."""
    prefix = family.prefix + "."
    bare = not any(name.startswith(prefix) for name in tensors)
    first_parts = {key[1:].partition(".")[0] for key in family.keys.values()} | {"pooler"}
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_JUNK):
            continue
        for old, new in _OLD_NORM.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if name.startswith(prefix):
            name = "@" + name.removeprefix(prefix)
        elif bare and name.partition(".")[0] in first_parts:
            name = "@" + name
        if name.endswith("decoder.bias"):  # the output bias, stored once or twice: this is the one that computes
            name = name.removesuffix("decoder.bias") + "bias"
        elif name.endswith(".bias") and name.removesuffix("bias") + "decoder.bias" in tensors:
            continue
        found[name] = tensor
    return found


def foreign_name(name: str, family: Family, head: str | None) -> str:
    """The foreign name (with ``@``) of one of our parameters or modules, such as ``encoder.blocks.0.attention.query``.

    Raises:
        KeyError: The family has no such part.
    """
    part, _, rest = name.partition(".")
    pieces = rest.split(".")
    block = pieces[1] if pieces[0] == "blocks" else ""
    if block:
        pieces[1] = "{i}"
    table = family.keys if part == "encoder" else family.heads[head or ""].keys
    for length in range(len(pieces), 0, -1):
        key = ".".join(pieces[:length])
        if key in table:
            tail = pieces[length:]
            return ".".join([table[key].replace("{i}", block), *tail])
    raise KeyError(name)


def our_name(foreign: str, family: Family, head: str | None) -> str | None:
    """Our name of a foreign module or parameter (with ``@``); None where the family has none."""
    tables = [("encoder", family.keys)]
    if head is not None:
        tables.append(("head", family.heads[head].keys))
    for part, table in tables:
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
                return f"{part}.{ours}{rest}"
    return None


def with_prefix(name: str, family: Family, *, bare: bool) -> str:
    """A foreign name as it stands in a file."""
    return name.replace("@", "" if bare else family.prefix + ".", 1)
