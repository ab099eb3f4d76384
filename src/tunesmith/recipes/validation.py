"""Validation losses of pretraining: always the same sequences and masks, and what a constant guess would get."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith.base.errors import DataError, SettingError
from tunesmith.base.random import numpy_stream
from tunesmith.objectives import Batch, Objective
from tunesmith.objectives.clm import CLM
from tunesmith.recipes.feed import cut
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.text.batching import cut_by_tokens
from tunesmith.text.sample import Drawn, Frame
from tunesmith.text.tokens import Tokens
from tunesmith.train.precision import Machine


@dataclass(frozen=True)
class Losses:
    """Losses on the dev split, in nats per target.

    Attributes:
        means: Of each term.
        constants: What the best constant guess of each term's targets gets: their entropy.
        weights: Weight of each term.
    """

    means: Mapping[str, float]
    constants: Mapping[str, float]
    weights: Mapping[str, float]

    @property
    def total(self) -> float:
        """Weighted sum of the means."""
        return sum(self.weights[term] * value for term, value in self.means.items())

    @property
    def constant_total(self) -> float:
        """The same of the best constant guess."""
        return sum(self.weights[term] * value for term, value in self.constants.items())


class Validation:
    """The dev split of a run.

    Args:
        tokens: Its documents.
        frame: Special tokens around texts.
        objective: What is learnt.
        settings: All settings.
        machine: Where to compute.

    Raises:
        DataError: The documents are too few, or too short, to give a sequence.
    """

    def __init__(
        self, tokens: Tokens, frame: Frame, objective: Objective, settings: PretrainSettings, machine: Machine
    ):
        try:
            samples = cut(
                tokens,
                frame,
                settings.input,
                settings.objective,
                max_tokens=settings.data.max_tokens,
                stream=lambda *parts: numpy_stream("dev input", *parts),
            )
        except (DataError, SettingError) as error:  # inputs do not know which part they are given
            size = f"{tokens.num_documents} document{'s' * (tokens.num_documents != 1)}, {tokens.num_tokens} tokens"
            raise DataError(
                f"corpus: its dev part ({size}) is too small ({error}): raise data.dev_share, or give more dev text"
            ) from None
        chosen = numpy_stream("dev order").permutation(len(samples))[: settings.data.dev_sequences]
        self.samples = {int(i): samples[int(i)] for i in np.sort(chosen)}
        self.text = tokens
        self.objective, self.machine = objective, machine
        self.max_tokens = settings.train.micro_batch_tokens

    @torch.no_grad()
    def losses(self, trainee: torch.nn.Module) -> Losses:
        """Losses of what trains, as it is now.

        Args:
            trainee: Gives the losses of a batch and a phase.
        """
        sums, counts = Counter[str](), Counter[str]()
        labels: dict[str, Counter[int]] = {}
        was_training = trainee.training
        trainee.eval()
        for batch in self._batches():
            counts.update(self.objective.targets(batch))
            for phase in self.objective.phases:
                for term, loss in trainee(batch, phase.name).items():
                    sums[term] += float(loss)  # pyright: ignore[reportArgumentType] (typed as counts, and holds sums)
            for term, values in self.objective.answers(batch).items():
                found, times = np.unique(values.cpu().numpy(), return_counts=True)
                labels.setdefault(term, Counter()).update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        trainee.train(was_training)
        return Losses(
            means={term: value / max(1, counts[term]) for term, value in sums.items()},
            constants={term: _entropy(found) for term, found in labels.items()},
            weights={term: weight for phase in self.objective.phases for term, weight in phase.terms.items()},
        )

    def bits_per_byte(self, losses: Losses) -> float | None:
        """All bits of causal language modelling over the bytes of the text that is looked at, its share by tokens.

        A mixture gives only some of the sequences to it, whose mean then stands for all. None where the objective has
        no such part, or the bytes are not known.
        """
        mean = losses.means.get("lm") if isinstance(self.objective, CLM) else losses.means.get("clm.lm")
        samples = self.samples.values()
        text = sum(int((~sample.special).sum()) for sample in samples)
        if mean is None or not text or not self.text.num_bytes:
            return None
        targets = sum(len(sample) - len(sample.lengths) for sample in samples)  # all but the first of each document
        return mean / math.log(2) * targets / (self.text.num_bytes * text / self.text.num_tokens)

    def unreached(self, trainee: torch.nn.Module) -> set[str]:
        """Parameters that the loss of some phase has no gradient for; its first batch tells, as all reach the same."""
        parameters = {name: p for name, p in trainee.named_parameters() if p.requires_grad}
        was_training = trainee.training
        trainee.eval()
        batch, found = next(self._batches()), set[str]()
        for phase in self.objective.phases:
            loss = torch.stack(list(trainee(batch, phase.name).values())).sum()
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            found |= {name for name, grad in zip(parameters, grads, strict=True) if grad is None}
        trainee.train(was_training)
        return found

    def _batches(self) -> Iterator[Batch]:
        numbers = list(self.samples)
        lengths = np.array([len(self.samples[i]) for i in numbers])
        for part in cut_by_tokens(range(len(numbers)), lengths, max_tokens=self.max_tokens):
            drawn = [Drawn(self.samples[numbers[i]], numpy_stream("dev mask", numbers[i])) for i in part]
            yield self.objective.prepare(drawn, device=self.machine.device)


def _entropy(counts: Counter[int]) -> float:
    """Entropy of a distribution in nats: the loss of the constant guess that knows it."""
    shares = np.array(list(counts.values()), dtype=np.float64) / counts.total()
    return float(-(shares * np.log(shares)).sum())
