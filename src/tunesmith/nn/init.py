"""Fresh weights."""

from collections.abc import Mapping

import torch

from tunesmith.base import random


def init_normal(
    module: torch.nn.Module, *, std: float, seed: int, name: str, stds: Mapping[str, float] | None = None
) -> None:
    """N(0, std^2) for matrices and tables, 0 for biases, 1 for the scales of norms: BERT's initialisation.

    Each tensor draws from a stream of its own name, so that a head is the same whatever else is built.

    Paper: BERT (arXiv:1810.04805), appendix A.2. Differs: plain instead of truncated normal, as transformers does.

    Args:
        module: Whose parameters to set.
        std: Standard deviation.
        seed: Seed of the streams.
        name: Name of the module, part of each stream's key.
        stds: Those of some parameters, by the ends of their names (with the module's own name before them).
    """
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if parameter.ndim >= 2:
                wide = next((own for end, own in (stds or {}).items() if f"{name}.{path}".endswith(end)), std)
                parameter.copy_(torch.empty_like(parameter).normal_(0, wide, generator=_stream(seed, name, path)))
            elif path.rpartition(".")[2] == "weight":
                parameter.fill_(1)
            else:
                parameter.zero_()


def _stream(seed: int, name: str, path: str) -> torch.Generator:
    return random.torch_stream("init", seed, name, path)
