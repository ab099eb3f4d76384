"""Settings of pretraining, and the recipes that fill them in: TOML files, one a recipe."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from tunesmith.base import choices
from tunesmith.base.config import Config, build, merge, read_toml
from tunesmith.base.errors import SettingError
from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.position import PositionConfig
from tunesmith.objectives import ObjectiveConfig
from tunesmith.objectives.mlm import MLMConfig
from tunesmith.text.cleaning import CleaningSettings
from tunesmith.text.corpus import CorpusSettings
from tunesmith.text.inputs import InputConfig
from tunesmith.text.inputs.doc_sentences import DocSentencesConfig
from tunesmith.text.train_tokenizer import TokenizerSettings
from tunesmith.train.optim import OptimiserConfig
from tunesmith.train.optim.adamw import AdamWConfig
from tunesmith.train.parallel import Engine
from tunesmith.train.schedule import ScheduleConfig
from tunesmith.train.schedule.linear import LinearConfig
from tunesmith.train.settings import Count, LoopSettings, Positive

Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]


class ModelSettings(Config):
    """The model: a preset, and what differs from it."""

    preset: str = pydantic.Field(
        default="bert_mini", description="Preset of a family, as `tunesmith show model` lists."
    )
    checkpoint: str | None = pydantic.Field(
        default=None,
        description="Folder or hub id of a model to go on from, with its tokenizer; of the rest only dropout counts.",
    )
    num_layers: Count | None = pydantic.Field(default=None, description="Blocks, of each stack.")
    num_stored: Count | None = pydantic.Field(default=None, description="Blocks with weights of their own.")
    d_model: Count | None = pydantic.Field(default=None, description="Width of the model.")
    d_embedding: Count | None = pydantic.Field(default=None, description="Width of the token table.")
    d_ff: Count | None = pydantic.Field(default=None, description="Width of the feed-forward layers.")
    d_head: Count | None = pydantic.Field(default=None, description="Width of an attention head.")
    num_heads: Count | None = pydantic.Field(default=None, description="Attention heads.")
    num_kv_heads: Count | None = pydantic.Field(default=None, description="Heads of keys and values.")
    max_positions: Count | None = pydantic.Field(default=None, description="Longest text, in tokens.")
    dropout: Rate | None = pydantic.Field(default=None, description="Dropout of sub-layers' outputs.")
    attention_dropout: Rate | None = pydantic.Field(default=None, description="Dropout of attention weights.")
    order: Literal["post", "pre"] | None = pydantic.Field(default=None, description="post-norm or pre-norm.")
    initial_std: Positive | None = pydantic.Field(default=None, description="Standard deviation of fresh weights.")
    position: Annotated[pydantic.SerializeAsAny[PositionConfig], choices.chosen("position")] | None = pydantic.Field(
        default=None, description="Position encoding."
    )
    feedforward: Annotated[pydantic.SerializeAsAny[FeedForwardConfig], choices.chosen("feedforward")] | None = (
        pydantic.Field(default=None, description="Feed-forward layer.")
    )
    norm: Annotated[pydantic.SerializeAsAny[NormConfig], choices.chosen("norm")] | None = pydantic.Field(
        default=None, description="Normalisation."
    )

    def changes(self) -> dict[str, Any]:
        """What differs from the preset."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("preset", "checkpoint")}


class CorpusData(CorpusSettings):
    """The corpus, and how sequences are cut from it."""

    max_tokens: Count = pydantic.Field(default=128, description="Longest sequence, special tokens included.")
    short_tokens: Count | None = pydantic.Field(
        default=None, description="Longest sequence at the beginning (sequence-length warm-up), as BERT's 128 of 512."
    )
    short_share: Rate = pydantic.Field(default=0.9, description="Share of the run that has short sequences.")
    grouping: Literal["none", "length"] = pydantic.Field(
        default="none", description="length: a step's sequences are of similar length."
    )
    dev_share: Annotated[float, pydantic.Field(gt=0, lt=1)] = pydantic.Field(
        default=0.01, description="Share of the documents held back where the corpus has no dev split."
    )
    dev_sequences: Count = pydantic.Field(default=500, description="Sequences of the dev split that are looked at.")
    workers: Annotated[int, pydantic.Field(ge=0, le=256)] = pydantic.Field(
        default=0, description="Further processes that tokenise."
    )
    cleaning: CleaningSettings | None = pydantic.Field(
        default=None, description="Filters for documents of low quality and near duplicates; none by default."
    )


class PretrainTraining(LoopSettings):
    """How to pretrain."""

    learning_rate: Positive = pydantic.Field(default=1e-3, description="Peak learning rate.")
    batch_size: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] = pydantic.Field(
        default=32, description="Sequences in an optimiser step."
    )
    batch_start: Count | None = pydantic.Field(
        default=None, description="Sequences in the first step (batch-size warm-up)."
    )
    batch_warmup: Rate = pydantic.Field(default=0.3, description="Share of the run over which the batch grows.")
    tokens: Count | None = pydantic.Field(default=None, description="Budget in real tokens.")
    evaluations: Annotated[int, pydantic.Field(ge=1, le=100_000)] = pydantic.Field(
        default=10, description="Looks at the dev split."
    )
    optimiser: Annotated[pydantic.SerializeAsAny[OptimiserConfig], choices.chosen("optimiser")] = pydantic.Field(
        default=AdamWConfig(),
        description="Optimiser.",
    )
    schedule: Annotated[pydantic.SerializeAsAny[ScheduleConfig], choices.chosen("schedule")] = pydantic.Field(
        default=LinearConfig(),
        description="Learning rate over the run.",
    )
    engine: Engine = pydantic.Field(
        default="ddp", description="Under torchrun: ddp copies the parameters, fsdp shards them."
    )


class PretrainSettings(Config):
    """All settings of a pretraining run."""

    model: ModelSettings = pydantic.Field(default_factory=ModelSettings, description="The model.")
    objective: Annotated[pydantic.SerializeAsAny[ObjectiveConfig], choices.chosen("objective")] = pydantic.Field(
        default=MLMConfig(),
        description="What is learnt.",
    )
    input: Annotated[pydantic.SerializeAsAny[InputConfig], choices.chosen("input")] = pydantic.Field(
        default=DocSentencesConfig(),
        description="How documents become sequences.",
    )
    data: CorpusData = pydantic.Field(default_factory=CorpusData, description="The corpus.")
    vocabulary: TokenizerSettings = pydantic.Field(
        default_factory=TokenizerSettings, description="The tokenizer to train, where none is given."
    )
    tokenizer: str | None = pydantic.Field(
        default=None, description="Folder of a tokenizer; if not given, the checkpoint's, or one is trained."
    )
    train: PretrainTraining = pydantic.Field(default_factory=PretrainTraining, description="How to train.")


def pretrain_settings(recipe: str, *layers: Mapping[str, Any]) -> PretrainSettings:
    """A recipe's settings with others over them; a recipe is a name (``bert`` is ``bert_mini``) or a TOML file.

    Raises:
        SettingError: There is no such recipe, or a setting is wrong.
    """
    tree: dict[str, Any] = {}
    for layer in (recipe_tree(recipe), *layers):
        tree = merge(tree, layer)
    settings = build(PretrainSettings, tree)
    train = settings.train
    if train.max_steps is None and train.tokens is None and train.minutes is None and train.epochs is None:
        raise SettingError(
            "train.max_steps: give a budget: train.max_steps, train.tokens, train.minutes or train.epochs"
        )
    _check_warmups(settings)
    return settings


def _check_warmups(settings: PretrainSettings) -> None:
    """Refuse beginnings that are beyond what they lead up to."""
    data, train = settings.data, settings.train
    if data.short_tokens is not None and data.short_tokens > data.max_tokens:
        raise SettingError(
            f"data.short_tokens: must be at most data.max_tokens={data.max_tokens}, got {data.short_tokens}"
        )
    if train.batch_start is not None and train.batch_start > train.batch_size:
        raise SettingError(
            f"train.batch_start: must be at most train.batch_size={train.batch_size}, got {train.batch_start}"
        )


def recipe_tree(recipe: str) -> dict[str, Any]:
    """The settings in a recipe's file.

    Raises:
        SettingError: There is no such recipe.
    """
    if recipe.endswith(".toml"):
        from pathlib import Path

        return read_toml(Path(recipe))
    known = choices.names("recipe")
    name = recipe if recipe in known else f"{recipe}_mini"
    if name not in known:
        raise SettingError(
            f"recipe: there is no recipe {recipe!r}: choose from {', '.join(known)}, or name a TOML file"
        )
    return read_toml(choices.path_of("recipe", name))
