"""Sites: the linear maps of a model by name, the same names in every family."""

import fnmatch

import torch

from tunesmith.base.errors import SettingError
from tunesmith.nn.linear import Linear


def linear_sites(model: torch.nn.Module) -> dict[str, Linear]:
    """Every linear map of the blocks, by name, such as ``encoder.blocks.3.attention.query``."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear) and ".blocks." in name}


def match_sites(
    model: torch.nn.Module, patterns: tuple[str, ...], *, setting: str, optional: tuple[str, ...] = ()
) -> dict[str, Linear]:
    """Sites that a pattern names: whole names or their ends, with ``*``, ``?`` and ``[0-3]``.

    ``attention.query`` is every query projection, ``encoder.blocks.[0-2].*`` all of the first three blocks.

    Args:
        model: The model.
        patterns: What to look for.
        setting: Where the patterns were set, for the error.
        optional: Patterns that may name no site.

    Raises:
        SettingError: A pattern names no site.
    """
    sites = linear_sites(model)
    found: dict[str, Linear] = {}
    for pattern in patterns:
        hits = {
            n: m for n, m in sites.items() if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, f"*.{pattern}")
        }
        if not hits and pattern not in optional:
            kinds = sorted({name.split(".", 3)[3] for name in sites})
            raise SettingError(f"{setting}: no site is named {pattern!r}: there are {', '.join(kinds)}")
        found |= hits
    return {name: module for name, module in sites.items() if name in found}
