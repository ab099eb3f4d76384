"""Random streams keyed by what they are for, never by the order of calls: a resumed run draws the same numbers."""

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def key(*parts: int | str) -> int:
    """64 bits from a sequence of names and numbers, the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """A NumPy generator for data order, splits and masks."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def torch_stream(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on the device, for initial weights and dropout."""
    generator = torch.Generator(device=device)
    generator.manual_seed(key(*parts) >> 1)  # torch takes at most 63 bits
    return generator


@contextlib.contextmanager
def global_stream(*parts: int | str, device: torch.device) -> Iterator[None]:
    """Key torch's own stream as well, for modules that cannot be given one; what it was before comes back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key(*parts) >> 1)
        yield
