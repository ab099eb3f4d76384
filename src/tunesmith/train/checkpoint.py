"""Checkpoints of a run: one safetensors file, or one for each process, that hold all that resuming needs.

Random streams and data order are keyed by step, so their state is the step itself.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, remove_quietly, save_tensors, tensor_metadata
from tunesmith.base.shapes import Tensor
from tunesmith.train.parallel import Parallel, empty_like, full, like, shard_or_whole
from tunesmith.train.sharded import INDEX, read_facts, read_shards, read_stored, write_shards
from tunesmith.train.update import Update

LAST = ("last.safetensors", f"last-*/{INDEX}")
"""What a checkpoint folder holds if a run can be resumed, as patterns."""


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
        first_loss: Loss of the first step.
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

    Where the processes hold shards, ``last-<step>`` stands for the former: a folder that all of them write into. A run
    may go on with another number of processes, so both kinds are read, whoever reads.

    Args:
        folder: Where they lie.
        parallel: The processes.
    """

    def __init__(self, folder: Path, parallel: Parallel | None = None):
        self.folder, self.parallel = folder, parallel or Parallel()

    def save(self, progress: Progress, updates: Sequence[Update]) -> None:
        """Write the state of the run; the one before goes when it is there.

        Raises:
            StorageError: It cannot be written; in all processes.
        """
        tensors = dict(_state(updates))
        facts = asdict(progress)
        if self.parallel.shards:
            path = self.folder / f"last-{progress.step}"
            parts = {name: shard_or_whole(tensor, parameter) for name, (tensor, parameter) in tensors.items()}
            write_shards(path, parts, facts={"progress": facts}, parallel=self.parallel)
        else:
            path = self.folder / "last.safetensors"
            whole = {name: full(tensor) for name, (tensor, _) in tensors.items()}
            header = {"progress": json.dumps(facts)}
            self.parallel.leader_does(lambda: save_tensors(path, whole, metadata=header))
        if self.parallel.leads:
            self._tidy(path, progress)

    def _tidy(self, last: Path, progress: Progress) -> None:
        for old in [*self.folder.glob("last*"), *self.folder.glob("best-*.safetensors")]:
            if old != last and old.name != f"best-{progress.best_step}.safetensors":
                gone = old.with_name(f".{old.name}.part")  # a folder goes file by file, and may not be met half gone
                with contextlib.suppress(OSError):
                    old.rename(gone)
                    remove_quietly(gone) if gone.is_dir() else gone.unlink()

    def save_best(self, progress: Progress, updates: Sequence[Update]) -> None:
        """Write the parameters of the best step; the file counts once `save` names its step."""
        tensors = {name: full(tensor) for name, tensor in _parameters(updates).items()}
        path = self.folder / f"best-{progress.best_step}.safetensors"
        self.parallel.leader_does(lambda: save_tensors(path, tensors))

    def load(self, updates: Sequence[Update]) -> Progress | None:
        """Put the last state back; None where there is none.

        Raises:
            CheckpointError: A file is damaged or belongs to another run.
        """
        found = [(self._progress(path), path) for pattern in LAST for path in self.folder.glob(pattern)]
        if not found:
            return None
        progress, path = max(found, key=lambda one: one[0].step)  # two: killed before the old one had gone
        parameters = _parameters(updates)
        if path.name == INDEX:
            tensors = self._from_shards(path.parent, updates)
        else:
            tensors = load_tensors(path)
            stored = {key.removeprefix("parameter/"): t for key, t in tensors.items() if key.startswith("parameter/")}
            self._copy(stored, parameters)
        names = {update.name for update in updates}
        if any(path.split("/")[1] not in names for path in tensors if path.startswith("optimiser/")):
            raise self._foreign()
        for update in updates:
            self._restore(update, tensors)
        return progress

    def _progress(self, path: Path) -> Progress:
        try:
            if path.name == INDEX:
                return Progress(**read_facts(path.parent)["progress"])
            return Progress(**json.loads(tensor_metadata(path)["progress"]))
        except (KeyError, ValueError, TypeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise self._foreign() from None

    def _from_shards(self, folder: Path, updates: Sequence[Update]) -> dict[str, Tensor]:
        """Fill the parameters; gives the optimisers' tensors, sharded as the parameters are here."""
        stored, parameters = read_stored(folder), _parameters(updates)
        own = {f"parameter/{name}": parameter for name, parameter in parameters.items()}
        if {n: s.shape for n, s in stored.items() if n.startswith("parameter/")} != {
            n: p.shape for n, p in own.items()
        }:
            raise self._foreign()
        into: dict[str, Tensor] = {name: parameter.detach() for name, parameter in own.items()}
        for name, found in stored.items():
            if name not in own:
                parameter = parameters.get(name.split("/", 3)[-1])
                if parameter is None:
                    raise self._foreign()
                into[name] = empty_like(parameter, found.shape, found.dtype)
        read_shards(folder, into)
        return {name: tensor for name, tensor in into.items() if name not in own}

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


def _state(updates: Sequence[Update]) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """All that is saved: its name, itself, and the parameter that it belongs to."""
    for update in updates:
        for name, parameter in update.parameters.items():
            yield f"parameter/{name}", (parameter, parameter)
        states = update.optimiser.state_dict()["state"]
        for number, (name, parameter) in enumerate(update.parameters.items()):
            for key, tensor in states.get(number, {}).items():
                yield f"optimiser/{update.name}/{key}/{name}", (tensor, parameter)


def _shapes(parameter: Tensor) -> set[tuple[int, ...]]:
    """What an optimiser keeps of a parameter: a number, as many numbers, or one for each row or column (Adafactor)."""
    shape = tuple(parameter.shape)
    return {(), shape, shape[:-1], (*shape[:-2], *shape[-1:])}


def _parameters(updates: Sequence[Update]) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for update in updates for name, parameter in update.parameters.items()}
