"""Denoising: the encoder reads a damaged text, and the decoder writes the whole original (BART).

Paper: BART (arXiv:1910.13461), section 2.2. The released models mix text infilling with permuted sentences, as here by
default.
Differs: fairseq lays spans independently of each other, so that they overlap and fewer words are taken out than its
budget says; here they do not, and the share is exact. Its noise cannot be replayed, as it seeds another generator than
it draws from; here all of it comes from the sample's own stream. As in fairseq, what stands before a text is written
too: a decoder begins at </s>, and the first that it writes is <s>.
"""

from collections.abc import Sequence

import numpy as np
import pydantic
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Bool, Int
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import Pair, both_sides, documents, written
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._noises import Masks, Text, delete_tokens, infill, mask_tokens, permute_sentences, rotate
from tunesmith.objectives._run import family_head, need
from tunesmith.text.sample import Drawn, Vocabulary


class DenoisingConfig(ObjectiveConfig):
    """Settings of denoising: a share for each noise."""

    infill: float = pydantic.Field(
        default=0.3, ge=0, le=1, description="Text infilling: share of words in spans that become one mask each."
    )
    mean_span: float = pydantic.Field(
        default=3.0, gt=0, le=10_000, description="Mean of the Poisson lengths of these spans, in words."
    )
    permute: float = pydantic.Field(
        default=1.0, ge=0, le=1, description="Sentence permutation: share of sentences that change places."
    )
    mask: float = pydantic.Field(default=0.0, ge=0, le=1, description="Token masking: share of tokens.")
    delete: float = pydantic.Field(default=0.0, ge=0, le=1, description="Token deletion: share of tokens.")
    rotate: float = pydantic.Field(default=0.0, ge=0, le=1, description="Document rotation: share of texts.")
    mask_random: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="Share of masks that become random tokens."
    )

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "denoising", kind="encoder-decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "Denoising":
        """The objective."""
        if not any((self.infill, self.permute, self.mask, self.delete, self.rotate)):
            raise SettingError(
                "objective: infill, permute, mask, delete and rotate are all 0, so that nothing is to be learned: "
                "raise one of them"
            )
        mask = vocabulary.need_mask("denoising") if self.infill or self.mask else 0
        return Denoising(
            self,
            masks=Masks(mask, vocabulary.ordinary(), self.mask_random),
            begins_word=vocabulary.begins_word,
            start=model.decoder_start,
            max_tokens=max_tokens,
        )


class Denoising(LMObjective):
    """<s> _ x3 x1 </s>, and to be written: <s> x1 x2 x3 x4 </s>.

    Sentences move first, then come spans, single masks, deletions and rotation; each text of a pair by itself.

    Args:
        config: The settings.
        masks: What stands in place of tokens.
        begins_word: Which ids begin a word, (V,).
        start: What the decoder reads first.
        max_tokens: Longest sequence, in tokens.
    """

    def __init__(
        self,
        config: DenoisingConfig,
        *,
        masks: Masks,
        begins_word: Bool[np.ndarray, "V"],
        start: int,
        max_tokens: int,
    ):
        self.config, self.masks, self.begins_word = config, masks, begins_word
        self.start, self.max_tokens = start, max_tokens

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch."""
        pairs = [self._damage(one) for one in documents(drawn)]
        return both_sides(pairs, num_samples=len(drawn), device=device)

    def _damage(self, one: Drawn) -> Pair:
        ids, special = one.sample.ids, one.sample.special
        # texts and what stands between them, in turn
        cuts = np.flatnonzero(special[1:] != special[:-1]) + 1
        starts, room, parts = np.array(one.sample.starts), max(0, self.max_tokens - len(ids)), []
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(ids)], strict=True):
            part = ids[start:stop]
            if not special[start]:
                inside = starts[(starts > start) & (starts < stop)] - start
                part = self._noisy(part, np.concatenate([[0], inside]), room=room, stream=one.stream)
                room -= max(0, len(part) - (stop - start))
            parts.append(part)
        return Piece(np.concatenate(parts)), written(ids, start=self.start)

    def _noisy(
        self,
        ids: Int[np.ndarray, "T"],
        starts: Int[np.ndarray, "S"],
        *,
        room: int,
        stream: np.random.Generator,
    ) -> Int[np.ndarray, "T"]:
        config = self.config
        if config.permute and len(starts) > 1:
            ids = permute_sentences(ids, starts, share=config.permute, stream=stream)
        text = Text(ids, np.zeros(len(ids), dtype=bool))
        if config.infill:
            begins = self.begins_word[ids]
            begins[0] = True
            text = infill(
                text,
                begins,
                share=config.infill,
                mean_span=config.mean_span,
                room=room,
                masks=self.masks,
                stream=stream,
            )
        if config.mask:
            text = mask_tokens(text, share=config.mask, masks=self.masks, stream=stream)
        if config.delete:
            text = delete_tokens(text, share=config.delete, stream=stream)
        if config.rotate and stream.random() < config.rotate:
            return rotate(text.ids, stream=stream)
        return text.ids
