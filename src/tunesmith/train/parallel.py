"""Training on several processes by PyTorch's own engines: DDP, or FSDP2 where a model does not fit one device.

Under ``torchrun`` each process takes its share of a step's samples; losses are divided by counts of the whole step, so
gradients are those of one process. Nothing here starts processes.
"""

import contextlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from tunesmith.base.errors import SettingError, StorageError, UserError
from tunesmith.base.shapes import Tensor

Engine = Literal["ddp", "fsdp"]
T = TypeVar("T")
_CPU = torch.device("cpu")
_PATIENCE = timedelta(hours=24)
"""How long processes wait for each other. Torch's own 10 to 30 minutes would end a run whose leading process tokenises,
validates or writes for hours; and they are needed less, as torchrun ends all processes when one of them has died."""


class Parallel:
    """The processes of a run; one process is the simple case.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        engine: How parameters are kept.
        device: Where this process computes.
    """

    def __init__(self, *, rank: int = 0, world: int = 1, engine: Engine = "ddp", device: torch.device = _CPU):
        self.rank, self.world, self.engine, self.device = rank, world, engine, device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def shards(self) -> bool:
        """Whether each process holds a part of each parameter only."""
        return self.engine == "fsdp" and self.world > 1

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a step's samples."""
        return list(items[self.rank :: self.world])

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over the processes; exact for counts below 2^53."""
        if self.world == 1:
            return dict(values)
        found = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return dict(zip(values, found.tolist(), strict=True))

    def most(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.world == 1:
            return value
        found = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found.item())

    def agreed(self, value: float) -> float:
        """The leading process's value, for decisions that all must make alike, such as by time."""
        if self.world == 1:
            return value
        found = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(found, 0)
        return float(found.item())

    def said(self, text: str) -> str:
        """The leading process's text."""
        size = int(self.agreed(len(text.encode())))
        if self.world == 1 or not size:
            return text if self.leads else ""
        found = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.leads:
            found.copy_(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
        dist.broadcast(found, 0)
        return bytes(found.tolist()).decode()

    def leader_does(self, work: Callable[[], object]) -> None:
        """Let the leading process do something, such as write a file, while the others wait.

        Raises:
            UserError: What it met; in all processes, as the others would end with a broken connection.
        """
        fault: UserError | None = None
        if self.leads:
            try:
                work()
            except UserError as error:
                fault = error
        line = self.said("" if fault is None else str(fault))
        if fault is not None:
            raise fault
        if line:
            raise StorageError(line)

    def wrap(
        self,
        module: torch.nn.Module,
        blocks: Sequence[torch.nn.Module],
        *,
        unreached: Callable[[], Collection[str]] | None = None,
    ) -> torch.nn.Module:
        """The module with gradients averaged (DDP) or parameters sharded as well (FSDP2, block by block).

        Args:
            module: What trains.
            blocks: Its parts that are gathered at once.
            unreached: Gives the parameters that some loss has no gradient for, always the same ones; None: not known,
                so that DDP looks for them in each backward pass.
        """
        if self.world == 1:
            return module
        if self.engine == "fsdp":
            # of this run's own devices: torch would take the GPUs of a machine that has some, whatever is asked for
            mesh = init_device_mesh(self.device.type, (self.world,))
            for block in blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(module, mesh=mesh)
            return module
        looks = unreached is None or bool(unreached())
        wrapped = DistributedDataParallel(module, find_unused_parameters=looks)
        # ours never change; the argument of this name is deprecated in torch 2.13, and older ones lack its heir
        wrapped.broadcast_buffers = False
        return wrapped

    @property
    def reorders(self) -> bool:
        """Whether gradients are added in another order behind the first exchange; of two there is one order."""
        return self.engine == "ddp" and self.world > 2

    @contextlib.contextmanager
    def syncing(self, module: torch.nn.Module, *, last: bool) -> Iterator[None]:
        """Exchange gradients only behind a step's last micro-batch."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
            yield
        elif isinstance(module, DistributedDataParallel) and not last:
            with module.no_sync():
                yield
        else:
            yield

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def processes(engine: Engine, *, device: torch.device) -> Iterator[Parallel]:
    """The processes that ``torchrun`` has started; one where it has not.

    Raises:
        SettingError: Its environment is incomplete.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Parallel(engine=engine, device=device)
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SettingError(f"{missing[0]}: not set, but WORLD_SIZE is: start several processes with torchrun")
    on_gpu = device.type == "cuda"
    if on_gpu:  # before anything else: what names no device, as torch's own parts do, shall mean this process's
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE, device_id=device if on_gpu else None)
    try:
        yield Parallel(rank=dist.get_rank(), world=dist.get_world_size(), engine=engine, device=device)
    except BaseException as error:
        # the traceback holds the wrapped module, and to free that behind the group's end hangs
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        dist.destroy_process_group()


def full(tensor: Tensor) -> Tensor:
    """A tensor as a whole, where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_or_whole(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor as it is where it is sharded as another one, else as a whole."""
    if isinstance(tensor, DTensor) and isinstance(other, DTensor):
        if (tensor.shape, tensor.device_mesh, tensor.placements) == (other.shape, other.device_mesh, other.placements):
            return tensor
    return full(tensor)


def empty_like(other: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor to fill, sharded as another one is where that is sharded and of the same shape."""
    if isinstance(other, DTensor) and tuple(shape) == tuple(other.shape):
        return torch.empty_like(other, dtype=dtype, requires_grad=False)
    return torch.empty(tuple(shape), dtype=dtype)


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor that belongs to another one: a tensor of the other's mesh where that is sharded, numbers excepted.

    What an optimiser keeps for each row is sharded as the rows are: a mean over it rounds as in an undisturbed run.
    """
    if not isinstance(other, DTensor) or isinstance(tensor, DTensor) or not tensor.ndim:
        return tensor
    by_row = tensor.shape == other.shape[: tensor.ndim]
    placements = other.placements if by_row else [Replicate()] * other.device_mesh.ndim
    return distribute_tensor(tensor.to(other.device), other.device_mesh, placements)
