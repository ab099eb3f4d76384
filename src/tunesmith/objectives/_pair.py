"""What next-sentence prediction and sentence-order prediction share: a masked LM with a question about two texts."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.pretrain import Pretrain, PretrainConfig
from tunesmith.objectives import Batch, Objective, Phase, by_length, packed
from tunesmith.objectives._masking import Masking, documents_of
from tunesmith.objectives._run import family_head, hidden_states, lm_of, need, wide
from tunesmith.text.sample import Drawn


def pair_head(model: Model, objective: str) -> HeadConfig:
    """The family's pretraining head.

    Raises:
        SettingError: The model is no encoder, or its family has no such head.
    """
    need(model, objective, kind="encoder")
    if model.config.family == "custom":
        return PretrainConfig()
    return family_head(model, "pretrain")


class PairObjective(Objective):
    """Masked LM and a question about each pair of texts, both answered in one run of the model.

    Args:
        masking: Chooses tokens and hides them.
        name: Name of the objective, and of the question's loss term.
        negatives: Setting of the input that gives pairs with labels.
    """

    def __init__(self, masking: Masking, *, name: str, negatives: str):
        self.masking = masking
        self.name = name
        self.negatives = negatives

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update, of the sum of both means."""
        return (Phase("train", {"lm": 1.0, self.name: 1.0}, lambda name: True),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch.

        Raises:
            SettingError: A sample has no label of its pair.
        """
        if any(one.sample.pair is None for one in drawn):
            raise self._no_pairs()
        pieces = [piece for one in drawn for piece in documents_of(one.sample, self.masking(one))]
        order = by_length(pieces)
        source, rows, labels = packed([pieces[i] for i in order], device=device)
        pair = torch.tensor([drawn[i].sample.pair for i in order], device=device)
        wanted, places = torch.cat([rows, source.layout.starts]).unique(return_inverse=True)
        batch = Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels, pair=pair)
        return replace(batch, more={"wanted": wanted, "lm": places[: len(rows)], "first": places[len(rows) :]})

    def check_input(self, negatives: str) -> None:
        """Refuse pairs that answer another question.

        Args:
            negatives: How the input makes second texts.

        Raises:
            SettingError: Not as this objective asks.
        """
        if negatives != self.negatives:
            raise self._no_pairs()

    def _no_pairs(self) -> SettingError:
        what = {"random": "that follow each other or not", "swapped": "in order or swapped"}[self.negatives]
        return SettingError(
            f"objective: {self.name} asks about pairs of texts {what}, which this input does not give: set "
            f"input=segment_pair input.negatives={self.negatives}"
        )

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
