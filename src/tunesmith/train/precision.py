"""Which device and number type to compute in, from what the machine can do; never from timing it.

| machine                                   | training | why                                                      |
|-------------------------------------------|----------|----------------------------------------------------------|
| CUDA, compute capability 8.0 or newer     | bf16     | tensor cores                                             |
| CPU with AVX512-BF16, AMX or Arm BF16     | bf16     | matrix products 3 to 4 times as fast as fp32, measured   |
| any other                                 | fp32     | bf16 would be emulated                                   |

The measured figures are in docs/benchmarks/attention.md.
"""

import contextlib
import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.machine import cpu_flags

Precision = Literal["auto", "bf16", "fp32"]
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Machine:
    """Where and in which type to compute.

    Attributes:
        device: The device.
        dtype: Type of the encoder's activations in training.
        reason: Why this type, for the log.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def precision(self) -> str:
        """The type as settings call it."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"


def choose_machine(device: str | None, precision: Precision) -> Machine:
    """Device and type for these settings.

    Raises:
        SettingError: The device is unknown or not there.
    """
    found = _device(device)
    if precision != "auto":
        return Machine(found, torch.bfloat16 if precision == "bf16" else torch.float32, "as set")
    if found.type == "cuda":
        if torch.cuda.get_device_capability(found) >= (8, 0):
            return Machine(found, torch.bfloat16, "this GPU has bf16 tensor cores")
        return Machine(found, torch.float32, "this GPU has no bf16 tensor cores")
    flags = _FLAGS & cpu_flags()
    if flags:
        return Machine(found, torch.bfloat16, f"this CPU has {sorted(flags)[0]}")
    return Machine(found, torch.float32, "this CPU has no bf16 instructions")


@contextlib.contextmanager
def frozen_in(root: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Keep the frozen parameters of a module in this type; the originals come back, bit for bit, in the end.

    Parameters that train stay as they are: they are the fp32 master weights.
    """
    originals = {
        parameter: parameter.data
        for parameter in root.parameters()
        if not parameter.requires_grad and parameter.dtype != dtype
    }
    try:
        for parameter, data in originals.items():
            parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in originals.items():
            parameter.data = data


def reuse_memory() -> None:
    """Let glibc keep freed blocks instead of giving each large one back to the kernel.

    A training step frees and asks again for the same megabyte blocks hundreds of times; by default each is mapped and
    zeroed anew (measured: 10 % of a step). Does nothing on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak, after giving freed memory back; where the system cannot (not Linux), the old peak stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_memory`: resident in this process on the CPU, allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # one process a GPU, under torchrun
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingError(f"train.device: must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"train.device: must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingError(f"train.device: {name} is not there: this machine has {torch.cuda.device_count()} GPUs")
    return device
