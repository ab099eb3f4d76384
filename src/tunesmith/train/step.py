"""One optimiser step: micro-batches, exact accumulation, clipping, one update for each phase."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch

from tunesmith.base.errors import UserError
from tunesmith.base.random import global_stream, torch_stream
from tunesmith.base.shapes import Tensor
from tunesmith.train.checkpoint import Progress
from tunesmith.train.parallel import Parallel, full, local
from tunesmith.train.update import Update


class TrainingError(UserError, ArithmeticError):
    """Training went wrong in a way that settings can mend."""


@runtime_checkable  # beartype looks, under pytest
class MicroBatch(Protocol):
    """What the loop needs to know of a micro-batch."""

    @property
    def num_samples(self) -> int:
        """Sequences in it."""
        ...

    @property
    def num_tokens(self) -> int:
        """Real tokens in it."""
        ...


B = TypeVar("B", bound=MicroBatch)


@runtime_checkable
class Work(Protocol[B]):
    """What is learnt."""

    def micro_batches(self, progress: Progress) -> Sequence[B]:
        """The micro-batches of the step that comes: this process's part of it."""
        ...

    def describe(self, number: int | None = None) -> str:
        """Which texts a micro-batch of the last step holds, or all of them, in words by which a user finds them."""
        ...

    def targets(self, batch: B) -> Mapping[str, int]:
        """Number of targets of each loss term in a micro-batch."""
        ...

    def losses(self, batch: B, *, phase: str, noise: torch.Generator) -> Mapping[str, Tensor]:
        """Sum of the losses of a micro-batch's targets, for each term of the phase."""
        ...


@dataclass(frozen=True)
class Stepper(Generic[B]):
    """Does steps.

    Attributes:
        work: What is learnt.
        module: What runs it, for several processes.
        updates: The updates of a step, in order.
        parallel: The processes.
        device: Where.
        seed: Key of the dropout streams.
        learning_rate: Peak.
        max_grad_norm: Clipping; None for none.
    """

    work: Work[B]
    module: torch.nn.Module
    updates: Sequence[Update]
    parallel: Parallel
    device: torch.device
    seed: int
    learning_rate: float
    max_grad_norm: float | None

    def step(self, progress: Progress, *, rate: Callable[[int], float], first: bool = False) -> None:
        """One step, and what it adds to the progress.

        Args:
            progress: Where the run stands.
            rate: Gives the share of the peak learning rate, from the tokens of the step; asked once, when the first
                gradients are there.
            first: Whether these processes have done none before.

        Raises:
            TrainingError: A loss or gradient is not a number; no parameter is changed by the phase that found it.
        """
        batches = self.work.micro_batches(progress)
        counts = self._counts(batches)
        seen = {"examples": sum(b.num_samples for b in batches), "tokens": sum(b.num_tokens for b in batches)}
        seen = self.parallel.sums(seen)
        if first and self.parallel.reorders:
            self._rehearse(batches[-1], progress)
        rated = functools.cache(lambda: rate(round(seen["tokens"])))
        total, terms = 0.0, {}
        for update in self.updates:
            for term, mean in self._update(update, batches, counts, progress, rate=rated).items():
                total += update.terms[term] * mean
                terms[term] = mean
        progress.examples += round(seen["examples"])
        progress.tokens += round(seen["tokens"])
        progress.step += 1
        progress.last_rate = self.learning_rate * rated()
        progress.add(total, terms)

    def _counts(self, batches: Sequence[B]) -> dict[str, float]:
        counts = {term: 0.0 for update in self.updates for term in update.terms}
        for batch in batches:
            for term, count in self.work.targets(batch).items():
                counts[term] += count
        return self.parallel.sums(counts)

    def _rehearse(self, batch: B, progress: Progress) -> None:
        """One micro-batch for nothing: DDP lays gradients out anew behind the first, and adds them in another order.

        A resumed run has the same layout in each step as one that was never stopped, and ends with the same bits.
        """
        for update in self.updates:
            noise = torch_stream("dropout", self.seed, progress.step, device=self.device)
            with global_stream("method", self.seed, progress.step, device=self.device):
                losses = self.work.losses(batch, phase=update.name, noise=noise)
                torch.stack(list(losses.values())).sum().backward()
        for update in self.updates:
            update.optimiser.zero_grad(set_to_none=True)

    def _update(
        self,
        update: Update,
        batches: Sequence[B],
        counts: Mapping[str, float],
        progress: Progress,
        *,
        rate: Callable[[], float],
    ) -> dict[str, float]:
        """Gradients of one phase over all micro-batches, and its update; the mean loss of each of its terms."""
        sums, broken = dict.fromkeys(update.terms, 0.0), None
        turns = len(batches)
        if self.parallel.engine == "fsdp":  # each run gathers shards, so all processes must run equally often
            turns = self.parallel.most(turns)
        for number in range(turns):
            idle = number >= len(batches)
            batch = batches[-1 if idle else number]
            key = (self.seed, progress.step, number, self.parallel.rank)
            key = key if self.parallel.world > 1 else key[:3]
            key = (*key, update.name) if len(self.updates) > 1 else key  # the same noise would tie phases together
            noise = torch_stream("dropout", *key, device=self.device)
            with (
                self.parallel.syncing(self.module, last=number == turns - 1),
                global_stream("method", *key, device=self.device),
            ):
                losses = self.work.losses(batch, phase=update.name, noise=noise)
                parts = [update.terms[term] * loss / max(1.0, counts[term]) for term, loss in losses.items()]
                # DDP and FSDP average over the processes, while the counts are those of all of them
                (torch.stack(parts).sum() * (0 if idle else self.parallel.world)).backward()
            for term, loss in losses.items():
                sums[term] += 0.0 if idle else loss.item()
            if broken is None and not math.isfinite(sum(sums.values())):
                broken = number
        sums = self.parallel.sums(sums)
        means = {term: value / max(1.0, counts[term]) for term, value in sums.items()}
        mean = sum(update.terms[term] * mean for term, mean in means.items())
        self.check(mean, "loss", step=progress.step + 1, micro_batch=broken)
        parameters = [p for p in update.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        progress.last_norms[update.name] = float(full(norm))
        self.check(progress.last_norms[update.name], "norm of the gradient", step=progress.step + 1)
        if self.max_grad_norm is not None and progress.last_norms[update.name] + 1e-6 > self.max_grad_norm:
            # else it would multiply all gradients by one, as it does behind a norm of torch's own
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        for group in update.optimiser.param_groups:
            group["lr"] = self.learning_rate * rate()
        update.optimiser.step()
        for other in self.updates:  # a phase may leave gradients in parameters that are not its own
            other.optimiser.zero_grad(set_to_none=True)
        return means

    def check(self, value: float, what: str, *, step: int, micro_batch: int | None = None) -> None:
        """See that a loss or norm is a number.

        Args:
            value: What should be one.
            what: Its name.
            step: The step that it belongs to: the last one that was begun.
            micro_batch: Where it broke in this process, if that is known.

        Raises:
            TrainingError: It is not.
        """
        if not math.isfinite(value):
            raise self._broken(f"the {what} became {value} at step {step} ({self.work.describe(micro_batch)})")

    def check_weights(self, progress: Progress) -> None:
        """See that all weights are numbers: a finite loss and gradient may still have moved one beyond all bounds.

        Raises:
            TrainingError: One is not, in any process.
        """
        weights = [local(parameter) for update in self.updates for parameter in update.parameters.values()]
        sound = torch.stack([torch.isfinite(weight).all() for weight in weights]).all().item()
        if self.parallel.sums({"broken": float(not sound)})["broken"]:
            raise self._broken(f"weights are no numbers any more behind step {progress.step} ({self.work.describe()})")

    def _broken(self, fault: str) -> TrainingError:
        return TrainingError(
            f"train: {fault}: lower train.learning_rate (now {self.learning_rate:g}) or set train.precision=fp32, and "
            "start anew with --overwrite"
        )
