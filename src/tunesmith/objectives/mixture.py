"""A mixture of objectives: each sample draws which one it serves.

The loss is sum_k w_k L_k with the weights w, which add up to 1 and are also the probabilities, and the loss L_k of each
part over the samples that it was given.

Paper: UL2 (arXiv:2205.05131), section 3, mixes denoisers in this way.
Differs: UL2 averages over all target tokens of a batch, so that denoisers with many targets weigh more; here each part
weighs as much as its weight says.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pydantic
import torch

from tunesmith.base import choices
from tunesmith.base.errors import SettingError
from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.objectives import Batch, Objective, ObjectiveConfig, Phase
from tunesmith.text.inputs import InputConfig
from tunesmith.text.sample import Drawn, Vocabulary

Part = Annotated[pydantic.SerializeAsAny[ObjectiveConfig], choices.chosen("objective")]
Weight = Annotated[float, pydantic.Field(gt=0)]


class MixtureConfig(ObjectiveConfig):
    """Settings of a mixture."""

    parts: tuple[Part, ...] = pydantic.Field(min_length=2, description="Objectives, by name or as tables with a name.")
    weights: tuple[Weight, ...] | None = pydantic.Field(
        default=None, description="How often each is drawn, and what it weighs in the loss; all alike by default."
    )

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "MixtureConfig":
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(f"weights must be as many as parts, {len(self.parts)}, got {len(self.weights)}")
        if len({part.duplicates for part in self.parts}) > 1:
            raise ValueError("parts must all have dynamic masks, or all static ones with the same number of copies")
        return self

    @property
    def duplicates(self) -> int | None:
        """Those of the parts."""
        return self.parts[0].duplicates

    def check_input(self, input: InputConfig) -> None:
        """As each part does."""
        for part in self.parts:
            part.check_input(input)

    def raw_tokens(self, max_tokens: int) -> int:
        """What suits all parts."""
        return min(part.raw_tokens(max_tokens) for part in self.parts)

    def head(self, model: Model) -> HeadConfig | None:
        """A head that all parts can use; a pretraining head serves those that need an LM head.

        Raises:
            SettingError: There is none, or a part does not fit the model.
        """
        heads = [head for head in (part.head(model) for part in self.parts) if head is not None]
        wide = next((head for head in heads if isinstance(head, PretrainConfig)), None)
        wanted = wide or next(iter(heads), None)
        for head in heads:
            if head != wanted and not (wide is not None and isinstance(head, LMConfig) and _serves(wide, head)):
                names = ", ".join(f"{part.choice_name()}" for part in self.parts)
                raise SettingError(
                    f"objective.parts: {names} need different heads: take objectives that read the same one"
                )
        return wanted

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "Mixture":
        """The objective.

        Raises:
            SettingError: A part updates its networks one after the other.
        """
        names = [part.choice_name() for part in self.parts]
        counts, seen = Counter(names), Counter[str]()
        parts: dict[str, Objective] = {}
        for name, part in zip(names, self.parts, strict=True):
            seen[name] += 1
            label = name if counts[name] == 1 else f"{name}{seen[name]}"
            parts[label] = part.build(model, vocabulary, max_tokens=max_tokens, seed=seed + len(parts))
            if len(parts[label].phases) > 1:
                raise SettingError(f"objective.parts: {name} has several updates in a step and cannot be mixed")
        weights = np.array(self.weights or [1.0] * len(parts))
        return Mixture(parts, weights=tuple((weights / weights.sum()).tolist()))


def _serves(wide: PretrainConfig, head: LMConfig) -> bool:
    """Whether the language-model part of a pretraining head is what this head is."""
    return LMConfig(activation=wide.activation, table=wide.table) == head


@dataclass(frozen=True)
class Mixed(Batch):
    """A micro-batch of several objectives; ``source`` is that of the first.

    Attributes:
        parts: What each objective is given; None where no sample drew it.
        stand_ins: What it is given in that case, for a loss that counts nothing; None elsewhere.
    """

    parts: tuple[Batch | None, ...] = ()
    stand_ins: tuple[Batch | None, ...] = ()

    def with_noise(self, noise: torch.Generator | None) -> "Mixed":
        """The same batch with a stream for dropout, which the parts draw from one after the other.

        Stand-ins draw nothing, so that the parts draw the same with and without them.
        """
        parts = tuple(None if part is None else part.with_noise(noise) for part in self.parts)
        return replace(self, parts=parts)


class Mixture(Objective):
    """Each sample serves one of several objectives.

    An objective that no sample of a micro-batch drew runs on a stand-in, weighted 0, so that every micro-batch reaches
    every parameter and runs every block equally often: other processes count on it.

    Args:
        parts: Objectives, each with one phase, under the names that stand before those of their terms.
        weights: Probability of each.
    """

    def __init__(self, parts: Mapping[str, Objective], *, weights: Sequence[float]):
        self.parts = dict(parts)
        self.weights = tuple(weights)
        self._up_to = np.cumsum(weights)[:-1]

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """Those of the parts, such as ``sbo_boundary``."""
        parts = self.parts.items()
        return {f"{label}_{name}": network for label, part in parts for name, network in part.networks.items()}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        terms = {
            f"{label}.{term}": share * weight
            for (label, part), share in zip(self.parts.items(), self.weights, strict=True)
            for term, weight in part.phases[0].terms.items()
        }
        return (Phase("train", terms, self._trains),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Mixed:
        """A micro-batch."""
        which = [int(np.searchsorted(self._up_to, one.stream.random(), "right")) for one in drawn]
        shortest = min((one.sample for one in drawn), key=len)
        parts: list[Batch | None] = []
        stand_ins: list[Batch | None] = []
        for number, part in enumerate(self.parts.values()):
            own = [one for one, chosen in zip(drawn, which, strict=True) if chosen == number]
            stand_in = Drawn(shortest, numpy_stream("stand-in", number))
            parts.append(part.prepare(own, device=device) if own else None)
            stand_ins.append(None if own else part.prepare([stand_in], device=device))
        some = [part for part in parts if part is not None]
        tokens = sum(part.num_tokens for part in some)
        return Mixed(len(drawn), tokens, some[0].source, parts=tuple(parts), stand_ins=tuple(stand_ins))

    def targets(self, batch: Batch) -> dict[str, int]:
        """Targets of each term of each part."""
        found: dict[str, int] = {}
        for label, part, own in self._given(batch):
            counts = dict.fromkeys(part.phases[0].terms, 0) if own is None else part.targets(own)
            found |= {f"{label}.{term}": count for term, count in counts.items()}
        return found

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the losses of each term of each part."""
        assert isinstance(batch, Mixed)
        found: dict[str, Tensor] = {}
        for (label, part, own), stand_in in zip(self._given(batch), batch.stand_ins, strict=True):
            run = own or stand_in
            assert run is not None
            sums = part.loss(model, run, phase=part.phases[0].name)
            found |= {f"{label}.{term}": total * (1 if own else 0) for term, total in sums.items()}
        return found

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """Those of each term of each part that has some."""
        given = [(label, part.answers(own)) for label, part, own in self._given(batch) if own is not None]
        return {f"{label}.{term}": values for label, found in given for term, values in found.items()}

    def take(self, model: Model, name: str, learnt: Model) -> None:
        """As the part does whose network it is."""
        for label, part in self.parts.items():
            own = name.removeprefix(f"{label}_")
            if own != name and own in part.networks:
                part.take(model, own, learnt)

    def finish(self, model: Model) -> None:
        """As each part does."""
        for part in self.parts.values():
            part.finish(model)

    def _given(self, batch: Batch) -> list[tuple[str, Objective, Batch | None]]:
        assert isinstance(batch, Mixed)
        return [(label, part, own) for (label, part), own in zip(self.parts.items(), batch.parts, strict=True)]

    def _trains(self, name: str) -> bool:
        for label, part in self.parts.items():
            own = f"networks.{label}_"
            if name.startswith(own):
                return part.phases[0].trains("networks." + name.removeprefix(own))
        return any(part.phases[0].trains(name) for part in self.parts.values())
