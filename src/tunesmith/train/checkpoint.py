"""Checkpoints of a run: one safetensors file, written atomically, that holds all that resuming needs.

Random streams and data order are keyed by step, so their state is the step itself.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, save_tensors, tensor_metadata
from tunesmith.base.shapes import Tensor


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Optimiser steps done.
        seconds: Training time so far.
        examples: Sequences seen.
        tokens: Real tokens seen.
        best: Best dev score so far.
        best_step: Step that reached it; 0: none yet.
        stale: Evaluations since then.
        done: Whether training has ended.
        curve: One entry an evaluation: step, epoch, train_loss, dev_loss, dev_metric.
        loss_sum: Sum of the step losses since the last evaluation.
        loss_count: Their number.
    """

    step: int = 0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    done: bool = False
    curve: list[dict[str, float | None]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0


class Checkpoints:
    """The checkpoint folder of a run: ``last.safetensors`` and ``best-<step>.safetensors``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, progress: Progress, parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
        """Write the state of the run."""
        tensors = {f"parameter/{name}": tensor for name, tensor in parameters.items()}
        states = optimiser.state_dict()["state"]
        for number, name in enumerate(parameters):
            tensors |= {f"optimiser/{key}/{name}": tensor for key, tensor in states.get(number, {}).items()}
        save_tensors(self.folder / "last.safetensors", tensors, metadata={"progress": json.dumps(asdict(progress))})
        for old in self.folder.glob("best-*.safetensors"):
            if old.name != f"best-{progress.best_step}.safetensors":
                with contextlib.suppress(OSError):
                    old.unlink()

    def save_best(self, progress: Progress, parameters: Mapping[str, Tensor]) -> None:
        """Write the parameters of the best step; the file counts once `save` names its step."""
        save_tensors(self.folder / f"best-{progress.best_step}.safetensors", parameters)

    def load(self, parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> Progress | None:
        """Put the last state back; None where there is none.

        Raises:
            CheckpointError: The file is damaged or belongs to another run.
        """
        path = self.folder / "last.safetensors"
        if not path.exists():
            return None
        tensors = load_tensors(path)
        try:
            progress = Progress(**json.loads(tensor_metadata(path)["progress"]))
        except (KeyError, ValueError, TypeError):
            raise self._foreign() from None
        self._copy(
            {name.removeprefix("parameter/"): t for name, t in tensors.items() if "parameter/" in name}, parameters
        )
        state: dict[int, dict[str, Tensor]] = {}
        for number, name in enumerate(parameters):
            for key in ("step", "exp_avg", "exp_avg_sq"):
                tensor = tensors.get(f"optimiser/{key}/{name}")
                if tensor is None:
                    continue
                if tensor.shape != (() if key == "step" else parameters[name].shape):
                    raise self._foreign()
                state.setdefault(number, {})[key] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        return progress

    def load_best(self, progress: Progress, parameters: Mapping[str, Tensor]) -> None:
        """Put the parameters of the best step back."""
        self._copy(load_tensors(self.folder / f"best-{progress.best_step}.safetensors"), parameters)

    def _copy(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
        if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in parameters.items()}:
            raise self._foreign()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])

    def _foreign(self) -> CheckpointError:
        return CheckpointError(f"{self.folder}: the checkpoint is damaged or of another run: start with --overwrite")
