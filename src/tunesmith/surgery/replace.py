"""Module replacement: the only way in which a tuning method changes a model."""

import torch


def replace(model: torch.nn.Module, site: str, module: torch.nn.Module) -> torch.nn.Module:
    """Put ``module`` at ``site`` and return what stood there."""
    parent_name, _, name = site.rpartition(".")
    parent = model.get_submodule(parent_name)
    old = model.get_submodule(site)
    setattr(parent, name, module)
    return old
