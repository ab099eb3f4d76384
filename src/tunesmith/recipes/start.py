"""What pretraining begins with: a preset's fresh weights, or a checkpoint that it goes on from."""

import torch

from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load
from tunesmith.models._folder import resolve
from tunesmith.models._fresh import changed_stack, fresh_model
from tunesmith.models.model import Model
from tunesmith.objectives import Objective
from tunesmith.recipes.listener import Listener
from tunesmith.recipes.open import open_tokenizer, set_tokenizer
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.text.sample import Vocabulary

_APPLIED = ("dropout", "attention_dropout")


def first_model(settings: PretrainSettings, vocabulary: Vocabulary, listener: Listener) -> Model:
    """The model as it is before the first step, without the objective's head where the checkpoint has none.

    Args:
        settings: All settings.
        vocabulary: What the tokenizer knows.
        listener: Hears what is not as one might think.

    Raises:
        UserError: There is no such preset or checkpoint, or it does not go with the settings; one line says why.
    """
    if settings.model.checkpoint is not None:
        return _loaded(settings, settings.model.checkpoint, listener)
    model, fault = fresh_model(
        settings.model.preset, changes=settings.model.changes(), vocabulary=vocabulary, seed=settings.train.seed
    )
    if fault is not None:
        listener.note(f"saved under our own names, as transformers cannot hold this model: {fault}")
    return model


def with_heads(
    model: Model, settings: PretrainSettings, vocabulary: Vocabulary, listener: Listener
) -> tuple[Model, Objective]:
    """The model with the objective's head, and the objective; the head's weights are the checkpoint's if it has them.

    Args:
        model: As `first_model` gives it.
        settings: All settings.
        vocabulary: What the tokenizer knows.
        listener: Hears which weights are fresh though there is a checkpoint.

    Raises:
        SettingError: The objective does not fit the model.
    """
    seed = settings.train.seed
    head = settings.objective.head(model)
    if head is not None:
        model = model.with_head(head, seed=seed)
    objective = settings.objective.build(model, vocabulary, max_tokens=settings.data.max_tokens, seed=seed)
    if settings.model.checkpoint is not None:
        fresh = [*model.fresh, *_take(settings.model.checkpoint, model, objective)]
        if fresh:
            listener.note(
                f"{settings.model.checkpoint}: has no weights for these, so they are fresh: {', '.join(fresh)}"
            )
    return model, objective


def tokenizer_of(settings: PretrainSettings) -> str | None:
    """Folder of the tokenizer that is given, or that comes with the checkpoint; None where one is to be trained."""
    if settings.tokenizer is None and settings.model.checkpoint is not None:
        return str(resolve(settings.model.checkpoint))
    return settings.tokenizer


def _loaded(settings: PretrainSettings, checkpoint: str, listener: Listener) -> Model:
    model = load(checkpoint, seed=settings.train.seed)
    own = model.tokenizer
    if settings.tokenizer is not None:
        set_tokenizer(model, settings.tokenizer)
        if own is not None and own.backend.get_vocab() != open_tokenizer(settings.tokenizer).backend.get_vocab():
            raise SettingError(
                f"tokenizer: {settings.tokenizer} has other tokens than {checkpoint}'s own, whose vectors are learnt: "
                "leave it out, and that one is taken"
            )
    given = {name: value for name, value in settings.model.changes().items() if value is not None}
    unused = [f"model.{name}" for name in ("preset", *given) if name not in _APPLIED]
    listener.note(f"going on from {checkpoint}, whose sizes and parts are kept; not used: {', '.join(unused)}")
    dropout = {name: given[name] for name in _APPLIED if name in given}
    return _with_dropout(model, dropout) if dropout else model


def _take(checkpoint: str, model: Model, objective: Objective) -> list[str]:
    """Let the objective begin with the networks that a run has kept beside its model; gives those that stay fresh."""
    fresh = []
    for name, network in objective.networks.items():
        folder = resolve(checkpoint) / name
        if not isinstance(network, Model) or not (folder / "config.json").is_file():
            fresh.append(name)
            continue
        learnt = load(folder)
        if _alike(network, learnt, shared=model):
            objective.take(model, name, learnt)
        else:
            fresh.append(f"{name} ({folder} has other sizes or parts, or other token vectors)")
    return fresh


def _alike(network: Model, learnt: Model, *, shared: Model) -> bool:
    """Whether one network can begin as another: of its shapes, and equal where it shares tensors with a model."""
    ours, theirs = network.state_dict(), learnt.state_dict()
    of_both = {tensor.data_ptr() for tensor in shared.state_dict().values()}
    if {name: tensor.shape for name, tensor in ours.items()} != {name: tensor.shape for name, tensor in theirs.items()}:
        return False
    return all(tensor.data_ptr() not in of_both or torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _with_dropout(model: Model, dropout: dict[str, float]) -> Model:
    """The same model with other rates."""
    config = model.config
    stacks = {"encoder": changed_stack(config.encoder, dropout), "decoder": changed_stack(config.decoder, dropout)}
    found = Model(config.model_copy(update=stacks), tokenizer=model.tokenizer)
    found.load_state_dict(model.state_dict())
    found.aside, found.source, found.generation = model.aside, model.source, model.generation
    found.fresh, found.architecture = model.fresh, model.architecture
    return found
