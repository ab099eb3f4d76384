"""Replaced token detection: a small masked-language model puts tokens in, the model finds them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.embeddings import Embeddings
from tunesmith.nn.head.lm import LM, LMConfig
from tunesmith.nn.init import init_normal
from tunesmith.objectives import Batch, Objective, Piece, Rows
from tunesmith.objectives._packing import by_length
from tunesmith.objectives._run import of_rows, wide
from tunesmith.objectives.mlm import MLM
from tunesmith.text.sample import Drawn


def small_model(model: Model, *, depth: float, width: float, seed: int) -> Model:
    """A masked-language model of the same kind with fresh weights.

    Args:
        model: The model; the token table keeps its width.
        depth: Share of its layers.
        width: Share of its width, feed-forward width and heads.
        seed: Seed of fresh weights.
    """
    whole = model.config.encoder
    assert whole is not None
    heads = max(1, round(whole.num_heads * width))
    d_head = max(1, round(whole.d_model * width) // heads)
    config = whole.model_copy(
        update={
            "num_layers": max(1, round(whole.num_layers * depth)),
            "num_stored": None if whole.stored == whole.num_layers else 1,
            "d_model": heads * d_head,
            "num_heads": heads,
            "num_kv_heads": None,
            "d_head": None,
            "d_ff": max(1, round(whole.d_ff * width)),
        }
    )
    foreign = {key: value for key, value in model.config.foreign.items() if key != "architectures"}
    head = LMConfig(activation="gelu")
    made = Model(ModelConfig(family=model.config.family, encoder=config, head=head, foreign=foreign))
    stds = made.family.fresh_stds(made.config.stacks)
    init_normal(made, std=config.initial_std, seed=seed, name="generator", stds=stds)
    made.tokenizer = model.tokenizer
    return made


def share_embeddings(model: Model, generator: Model) -> None:
    """Let the generator read the model's tables where they are of one shape: one tensor each, and one gradient.

    Positions without tables may know of heads, which are others in the generator: it keeps its own.
    """
    ours, theirs = _embeddings(model), _embeddings(generator)
    theirs.tokens, theirs.segments = ours.tokens, ours.segments
    if _shapes(ours.position) and _shapes(ours.position) == _shapes(theirs.position):
        theirs.position = ours.position
    if ours.norm is not None and theirs.norm is not None and _shapes(ours.norm) == _shapes(theirs.norm):
        theirs.norm = ours.norm
    head = generator.make_head(generator.config.head)  # tied to the table that is read now
    assert head is not None
    assert generator.head is not None
    head.load_state_dict(generator.head.state_dict())
    generator.head = head


def _embeddings(model: Model) -> Embeddings:
    assert model.encoder is not None
    return model.encoder.embeddings


def _shapes(module: torch.nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in module.parameters()]


class Detection(Objective):
    """What ELECTRA and DeBERTaV3 share.

    Args:
        generator: Puts tokens in.
        mlm: Masks, and prepares its batches.
    """

    def __init__(self, generator: Model, mlm: MLM):
        self.generator = generator
        self.mlm = mlm

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A masked micro-batch, the originals, and a number for each masked token, by which its stand-in is drawn."""
        batch = self.mlm.prepare(drawn, device=device)
        assert batch.rows is not None
        assert batch.labels is not None
        draws: list[np.ndarray] = []
        for one in drawn:
            draws += np.split(one.stream.random(len(one.sample)), np.cumsum(one.sample.lengths)[:-1])
        order = by_length([Piece(part) for part in draws])  # as the documents are packed
        packed = torch.from_numpy(np.concatenate([draws[i] for i in order])).to(device)
        original = batch.source.token_ids.index_copy(0, batch.rows, batch.labels)
        return replace(batch, more={"original": original, "draws": packed[batch.rows]})

    def targets(self, batch: Batch) -> dict[str, int]:
        """Masked tokens, and all tokens."""
        assert batch.rows is not None
        return {"lm": len(batch.rows), "rtd": batch.source.layout.num_tokens}

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """Hidden tokens, and what was replaced."""
        return super().answers(batch) | {"rtd": batch.made["replaced"]}

    def generate(self, model: Model, batch: Batch) -> Tensor:
        """Loss of the generator; leaves what it puts in, and where that differs, in ``batch.made``."""
        assert batch.rows is not None
        assert batch.labels is not None
        layout, original = batch.source.layout, batch.more["original"]
        encoder, head = self.generator.encoder, self.generator.head
        assert encoder is not None
        assert isinstance(head, LM)
        hidden = of_rows(
            batch.rows, lambda rows: encoder(batch.source.token_ids, layout, dtype=model.compute_dtype, rows=rows)
        )
        loss, samples = head.loss_and_samples(hidden, batch.labels, batch.more["draws"])
        batch.made["corrupted"] = original.index_copy(0, batch.rows, samples)
        return loss

    def detect(self, model: Model, batch: Batch) -> Tensor:
        """Loss of the model: which tokens are not the original ones; a right guess counts as original."""
        layout = batch.source.layout
        corrupted = batch.made["corrupted"]
        source = Rows(corrupted, layout)
        replaced = (corrupted != batch.more["original"])[: layout.num_tokens]
        assert model.head is not None
        hidden = model.trunk(source.token_ids, layout, dtype=model.compute_dtype)[: layout.num_tokens]
        logits = model.head(model.head.in_context(hidden, layout), layout.noise)[:, 0]
        logits = wide(logits)
        batch.made["replaced"] = replaced.long()
        return F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="sum")
