"""Checkpoints of a run: one safetensors file, written atomically, that holds all that resuming needs.

Random streams and data order are keyed by step, so their state is the step itself.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, save_tensors, tensor_metadata
from tunesmith.base.shapes import Tensor
from tunesmith.train.parallel import full, like
from tunesmith.train.update import Update


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
        curve: One entry an evaluation: step, epoch, tokens, seconds, train_loss, dev_loss, dev_metric, and the mean of
            each loss term.
        loss_sum: Sum of the step losses since the last evaluation.
        loss_count: Their number.
        term_sums: Sums of each loss term since then.
        last_loss: Loss of the last step.
        last_terms: Its terms.
        last_rate: Its learning rate.
        last_norms: Its norm of the gradient, before clipping, of each phase.
        first_loss: Mean loss of the first steps.
        high_steps: Steps in a row whose loss was far above it.
        cursor: Where the data stand, for whoever gives them.
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
    term_sums: dict[str, float] = field(default_factory=dict)
    last_loss: float = 0.0
    last_terms: dict[str, float] = field(default_factory=dict)
    last_rate: float = 0.0
    last_norms: dict[str, float] = field(default_factory=dict)
    first_loss: float = 0.0
    high_steps: int = 0
    cursor: dict[str, int] = field(default_factory=dict)

    def add(self, loss: float, terms: Mapping[str, float]) -> None:
        """Count the loss of a step, and those of its terms."""
        self.last_loss, self.last_terms = loss, dict(terms)
        self.loss_sum += loss
        self.loss_count += 1
        for term, value in terms.items():
            self.term_sums[term] = self.term_sums.get(term, 0.0) + value


class Checkpoints:
    """The checkpoint folder of a run: ``last.safetensors`` and ``best-<step>.safetensors``.

    Args:
        folder: Where they lie.
        writes: Whether this process writes them; of several processes one does.
    """

    def __init__(self, folder: Path, *, writes: bool = True):
        self.folder, self.writes = folder, writes

    def save(self, progress: Progress, updates: Sequence[Update]) -> None:
        """Write the state of the run."""
        tensors = {f"parameter/{name}": full(tensor) for name, tensor in _parameters(updates).items()}
        for update in updates:
            states = update.optimiser.state_dict()["state"]
            for number, name in enumerate(update.parameters):
                state = states.get(number, {})
                tensors |= {f"optimiser/{update.name}/{key}/{name}": full(tensor) for key, tensor in state.items()}
        if not self.writes:
            return
        save_tensors(self.folder / "last.safetensors", tensors, metadata={"progress": json.dumps(asdict(progress))})
        for old in self.folder.glob("best-*.safetensors"):
            if old.name != f"best-{progress.best_step}.safetensors":
                with contextlib.suppress(OSError):
                    old.unlink()

    def save_best(self, progress: Progress, updates: Sequence[Update]) -> None:
        """Write the parameters of the best step; the file counts once `save` names its step."""
        tensors = {name: full(tensor) for name, tensor in _parameters(updates).items()}
        if self.writes:
            save_tensors(self.folder / f"best-{progress.best_step}.safetensors", tensors)

    def load(self, updates: Sequence[Update]) -> Progress | None:
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
        stored = {key.removeprefix("parameter/"): t for key, t in tensors.items() if key.startswith("parameter/")}
        self._copy(stored, _parameters(updates))
        for update in updates:
            self._restore(update, tensors)
        return progress

    def load_best(self, progress: Progress, updates: Sequence[Update]) -> None:
        """Put the parameters of the best step back."""
        self._copy(load_tensors(self.folder / f"best-{progress.best_step}.safetensors"), _parameters(updates))

    def _restore(self, update: Update, tensors: Mapping[str, Tensor]) -> None:
        numbers = {name: number for number, name in enumerate(update.parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            if not path.startswith(f"optimiser/{update.name}/"):
                continue
            key, _, name = path.removeprefix(f"optimiser/{update.name}/").partition("/")
            if name not in numbers or tuple(tensor.shape) not in _shapes(update.parameters[name]):
                raise self._foreign()
            state.setdefault(numbers[name], {})[key] = like(tensor, update.parameters[name])
        update.optimiser.load_state_dict({**update.optimiser.state_dict(), "state": state})

    def _copy(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
        if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in parameters.items()}:
            raise self._foreign()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(like(tensors[name], parameter))

    def _foreign(self) -> CheckpointError:
        return CheckpointError(f"{self.folder}: the checkpoint is damaged or of another run: start with --overwrite")


def _shapes(parameter: Tensor) -> set[tuple[int, ...]]:
    """What an optimiser keeps of a parameter: a number, as many numbers, or one for each row or column (Adafactor)."""
    shape = tuple(parameter.shape)
    return {(), shape, shape[:-1], (*shape[:-2], *shape[-1:])}


def _parameters(updates: Sequence[Update]) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for update in updates for name, parameter in update.parameters.items()}
