"""What generating and scoring texts share: a model that can, its tokenizer, and prompts that fit it."""

from collections.abc import Sequence

from tunesmith.base.errors import CheckpointError, DataError
from tunesmith.models._checkpoint import head_from_hf
from tunesmith.models._generation_settings import begin_of
from tunesmith.models.model import Model
from tunesmith.nn.head.lm import LM
from tunesmith.recipes.open import need_tokenizer
from tunesmith.text.tokenizer import Opening


def with_lm_head(model: Model) -> Model:
    """A model that generates: as it is, or a bare decoder with the head that its own token table gives.

    Raises:
        CheckpointError: It has no decoder, or no weights of such a head.
    """
    if model.decoder is not None and isinstance(model.head, LM):
        return model
    table = model.family.heads.get("lm")
    if model.decoder is None or table is None:
        raise CheckpointError(
            f"{model.source}: {model.config.family} cannot generate: it has no decoder with an lm head"
        )
    fields = {**model.config.foreign, **model.family.to_hf(model.config.stacks)}
    found = model.with_head(head_from_hf(table, fields, source=model.source))
    if found.fresh:
        raise CheckpointError(f"{model.source}: cannot generate: the checkpoint has no weights of an lm head")
    return found.train(model.training)


def openings(model: Model, texts: Sequence[str], *, names: Sequence[str]) -> list[Opening]:
    """Texts that a decoder goes on from, at least one token each, or that an encoder reads (whole, with all tokens).

    Args:
        model: The model.
        texts: The texts.
        names: What to call each in an error.

    Raises:
        CheckpointError: There is no tokenizer.
        DataError: A text is longer than the model, or has no token.
    """
    tokenizer = need_tokenizer(model)
    if model.encoder is not None:
        found = [Opening(ids, []) for ids in tokenizer.encode(list(texts), max_tokens=None).ids]
        longest = model.encoder.config.max_positions
    else:
        begin = begin_of(model)
        found = [
            Opening([begin], [0]) if not opening.ids and begin is not None else opening
            for opening in tokenizer.openings(texts)
        ]
        longest = model.config.trunk.max_positions
    for name, opening in zip(names, found, strict=True):
        if not opening.ids:
            raise DataError(f"{name}: is empty, and this model has no token to begin with: give some text")
        if len(opening.ids) > longest:
            raise DataError(f"{name}: has {len(opening.ids)} tokens, but the model has {longest} positions: shorten it")
    return found
