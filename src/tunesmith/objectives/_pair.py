"""What next-sentence prediction and sentence-order prediction share: a masked LM with a question about two texts."""

from collections.abc import Sequence
from dataclasses import replace

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.pretrain import Pretrain
from tunesmith.objectives import Batch, Objective, ObjectiveConfig, Phase
from tunesmith.objectives._masking import Masking, MaskingConfig, documents_of
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, hidden_states, lm_of, need, wide
from tunesmith.text.inputs import InputConfig
from tunesmith.text.sample import Drawn, Vocabulary

NEGATIVES = {"nsp": "random", "sop": "swapped"}
"""What a second text is that is not the right one, by objective."""
_ASKED = {"nsp": "that follow each other or not", "sop": "in order or swapped"}


class PairConfig(ObjectiveConfig):
    """Settings of masked language modelling with a question about two texts; the file's name says which."""

    mlm: MaskingConfig = pydantic.Field(default=MaskingConfig(), description="Masks, as for objective mlm.")
    weight: float = pydantic.Field(default=1.0, gt=0, description="Weight of the question about the texts.")

    def head(self, model: Model) -> HeadConfig | None:
        """The family's pretraining head."""
        need(model, self.choice_name(), kind="encoder")
        return family_head(model, "pretrain")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "PairObjective":
        """The objective."""
        name = self.choice_name()
        return PairObjective(Masking(self.mlm, vocabulary, objective=name), name=name, weight=self.weight)

    def check_input(self, input: InputConfig) -> None:
        """Refuse texts that come alone, and pairs that answer another question."""
        if input.second_texts != NEGATIVES[self.choice_name()]:
            raise no_pairs(self.choice_name())

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.mlm.frozen


def no_pairs(objective: str) -> SettingError:
    """What to say where an input gives no such pairs."""
    return SettingError(
        f"objective: {objective} asks about pairs of texts {_ASKED[objective]}, which this input does not give: set "
        f"input=segment_pair input.negatives={NEGATIVES[objective]}"
    )


class PairObjective(Objective):
    """Masked LM and a question about each pair of texts, both answered in one run of the model.

    Args:
        masking: Chooses tokens and hides them.
        name: Name of the objective, and of the question's loss term.
        weight: Weight of the question; 1 in the papers.
    """

    def __init__(self, masking: Masking, *, name: str, weight: float):
        self.masking = masking
        self.name = name
        self.weight = weight

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update, of the weighted sum of both means."""
        return (Phase("train", {"lm": 1.0, self.name: self.weight}, lambda name: True),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch.

        Raises:
            SettingError: A sample has no label of its pair.
        """
        if any(one.sample.pair is None for one in drawn):
            raise no_pairs(self.name)
        pieces = [piece for one in drawn for piece in documents_of(one.sample, self.masking(one))]
        order = by_length(pieces)
        source, rows, labels = packed([pieces[i] for i in order], device=device)
        pair = torch.tensor([drawn[i].sample.pair for i in order], device=device)
        wanted, places = torch.cat([rows, source.layout.starts]).unique(return_inverse=True)
        batch = Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels, pair=pair)
        return replace(batch, more={"wanted": wanted, "lm": places[: len(rows)], "first": places[len(rows) :]})

    def targets(self, batch: Batch) -> dict[str, int]:
        """Hidden tokens, and pairs."""
        assert batch.rows is not None
        return {"lm": len(batch.rows), self.name: batch.num_samples}

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """Hidden tokens, and labels of pairs."""
        assert batch.pair is not None
        return super().answers(batch) | {self.name: batch.pair}

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sums of the cross-entropies."""
        head = model.head
        assert isinstance(head, Pretrain)
        assert batch.labels is not None
        assert batch.pair is not None
        hidden = hidden_states(model, batch, batch.more["wanted"])
        answers = head.pair_logits(hidden[batch.more["first"]], batch.source.layout.noise)
        return {
            "lm": lm_of(model).loss(hidden[batch.more["lm"]], batch.labels),
            self.name: F.cross_entropy(wide(answers), batch.pair, reduction="sum"),
        }
