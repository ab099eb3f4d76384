"""Model families: one file each, with presets and the two-way table of Hugging Face names. Never imports transformers.

A family's file holds ``FAMILY``; `model` has the model itself, `_folder` reads and writes checkpoint folders.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.base.shapes import Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.transformer import TransformerConfig

Foreign = Mapping[str, Any]
"""A config.json of Hugging Face."""


@dataclass(frozen=True)
class Stacks:
    """The settings of a model's stacks: an encoder, a decoder, or both."""

    encoder: TransformerConfig | None = None
    decoder: TransformerConfig | None = None


@dataclass(frozen=True)
class HeadTable:
    """One head of a family.

    Attributes:
        architecture: Name of the transformers class.
        keys: Our module or parameter name below ``head`` to the foreign one; ``@`` stands for the base prefix.
        from_hf: The head's settings from config.json.
        prefix: The base prefix inside this class, where it is not the family's.
    """

    architecture: str
    keys: dict[str, str]
    from_hf: Callable[[Foreign], HeadConfig]
    prefix: str | None = None


@dataclass(frozen=True)
class Fused:
    """A foreign tensor that is several of ours, or one in another shape.

    Attributes:
        name: Foreign name without ``.weight`` and the like; ``{i}`` is the block.
        parts: What follows ``#`` in the names that the tables use for its parts, such as ``query``.
        split: The parts of a tensor; gets the stack's settings.
        join: The tensor of the parts.
    """

    name: str
    parts: tuple[str, ...]
    split: Callable[[Tensor, TransformerConfig], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor], TransformerConfig], Tensor]


@dataclass(frozen=True)
class Family:
    """A model family as a table.

    Attributes:
        name: ``model_type`` in config.json.
        prefix: Name of the base model inside headed ones, such as ``bert``; empty where it has none.
        keys: Our module or parameter name to the foreign one; ``{i}`` is the block.
        heads: Head name to its table; those of a bare model come last.
        from_hf: Settings of the stacks from config.json.
        to_hf: Fields of config.json from the stacks.
        bare: Name of the transformers class without a head.
        head_to_hf: Fields of config.json from the head, beside those that all families share.
        keys_of: Keys that depend on the settings; they join ``keys``.
        pad_counts: Whether padding takes positions; RoBERTa counts real tokens only.
        fused: Foreign tensors that are not one of ours as they stand.
        head_dropout: Field of config.json that holds the dropout of classification heads.
        renamed: Modules that are named otherwise where config.json says so: name in the tables to name in the file.
        junk: Ends of names that hold no weights: buffers of old files.
        settle: Fields of config.json that the tensors decide, whatever it says: is the head tied, what is it called.
        clean: Puts an odd file's tensors right before anything else is done; gets config.json too.
        repeat: Tensors that files repeat under another name: that name to the name in the tables. They
            are written where ``tie_word_embeddings`` is false: transformers then misses them.
        encoder_only: Classes that have the encoder alone; the first is the one without a head.
        stds: Standard deviations of fresh weights by the ends of their names, where not ``initial_std``; stacks come
            before the head.
        presets: Sizes by name, in the fields of config.json.
    """

    name: str
    prefix: str
    keys: dict[str, str]
    heads: dict[str, HeadTable]
    from_hf: Callable[[Foreign], Stacks]
    to_hf: Callable[[Stacks], dict[str, Any]]
    bare: str
    head_to_hf: Callable[[HeadConfig], dict[str, Any]] | None = None
    keys_of: Callable[[Stacks], dict[str, str]] | None = None
    pad_counts: bool = True
    fused: tuple[Fused, ...] = ()
    head_dropout: str = "classifier_dropout"
    renamed: Callable[[Foreign], dict[str, str]] | None = None
    junk: tuple[str, ...] = ()
    settle: Callable[[Mapping[str, Tensor], Foreign], dict[str, Any]] | None = None
    clean: Callable[[dict[str, Tensor], Foreign], dict[str, Tensor]] | None = None
    repeat: dict[str, str] = field(default_factory=dict)
    encoder_only: tuple[str, ...] = ()
    stds: Callable[[Stacks], dict[str, float]] | None = None
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fresh_stds(self, stacks: Stacks) -> dict[str, float]:
        """Standard deviations of fresh weights, by the ends of their names, where not ``initial_std``."""
        return {} if self.stds is None else self.stds(stacks)
