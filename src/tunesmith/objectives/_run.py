"""Run a model on a batch as far as an objective needs it: hidden states of some rows, and losses of the LM head."""

from collections.abc import Callable

import torch

from tunesmith.base import choices
from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.models._fresh import usual_head
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.lm import LM
from tunesmith.nn.head.pretrain import Pretrain
from tunesmith.nn.two_streams import two_streams
from tunesmith.objectives import Batch


def hidden_states(model: Model, batch: Batch, rows: Int[Tensor, "M"] | None) -> Float[Tensor, "M D"]:
    """Hidden states of the last stack at some packed rows (all by default), with no work on what is not wanted."""
    if rows is not None:
        return of_rows(rows, lambda some: _hidden_states(model, batch, some))
    return _hidden_states(model, batch, None)


def of_rows(rows: Int[Tensor, "M"], states: Callable[[Int[Tensor, "R"]], Float[Tensor, "R D"]]) -> Float[Tensor, "M D"]:
    """Hidden states of packed rows; where there are none, a first row is run and dropped.

    So each parameter gets a gradient, of zeros, from a batch without targets too: other processes count on it.
    """
    return states(rows) if len(rows) else states(rows.new_zeros(1))[:0]


def _hidden_states(model: Model, batch: Batch, rows: Int[Tensor, "M"] | None) -> Float[Tensor, "M D"]:
    source, dtype = batch.source, model.compute_dtype
    if batch.target is None:
        if batch.hidden is None:
            return model.trunk(source.token_ids, source.layout, dtype=dtype, rows=rows)
        found = two_streams(model.trunk, source.token_ids, source.layout, hidden=batch.hidden, dtype=dtype, ahead="all")
        return found if rows is None else found.index_select(0, rows)
    assert model.encoder is not None
    assert model.decoder is not None
    memory = model.encoder(source.token_ids, source.layout, dtype=dtype)
    target = batch.target
    return model.decoder(target.token_ids, target.layout, dtype=dtype, rows=rows, memory=(memory, source.layout))


def wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """In the type that losses are summed in: fp32, or float64 if x is."""
    return x if x.dtype == torch.float64 else x.float()


def lm_of(model: Model) -> LM:
    """The language-model part of the model's head."""
    head = model.head.lm if isinstance(model.head, Pretrain) else model.head
    assert isinstance(head, LM)
    return head


def lm_loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """Sum of the cross-entropies of the batch's labels at its rows."""
    assert batch.rows is not None
    assert batch.labels is not None
    return lm_of(model).loss(hidden_states(model, batch, batch.rows), batch.labels)


def family_head(model: Model, name: str) -> HeadConfig:
    """The head of a name, such as ``lm``, as the family has it; custom models may have any, theirs is a plain one.

    Raises:
        SettingError: The family has none.
    """
    found = usual_head(model, name)
    if found is None and model.config.family == "custom":
        found = choices.choose("head", name)
    if not isinstance(found, HeadConfig):
        raise SettingError(f"objective: {model.config.family} has no {name} head: choose another objective or model")
    return found


def need(model: Model, objective: str, *, kind: str) -> None:
    """Refuse a kind of model that an objective cannot train.

    Args:
        model: The model.
        objective: Name of the objective.
        kind: ``encoder``, ``decoder`` or ``encoder-decoder``.

    Raises:
        SettingError: The model is of another kind.
    """
    has = "encoder-decoder" if model.encoder and model.decoder else "decoder" if model.decoder else "encoder"
    if has != kind:
        article = {"decoder": "a"}
        raise SettingError(
            f"objective: {objective} trains {article.get(kind, 'an')} {kind}, but {model.config.family} is "
            f"{article.get(has, 'an')} {has}"
        )
