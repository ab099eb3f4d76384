"""Model families: one file each, with presets and the two-way table of Hugging Face names. Never imports transformers.

A family's file holds ``FAMILY``; `model` has the model itself, `_folder` reads and writes checkpoint folders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.nn.head import HeadConfig
from tunesmith.nn.transformer import TransformerConfig

Foreign = Mapping[str, Any]
"""A config.json of Hugging Face."""


@dataclass(frozen=True)
class HeadTable:
    """One head of a family.

    Attributes:
        architecture: Name of the transformers class.
        keys: Our module or parameter name below ``head`` to the foreign one; ``@`` stands for the base prefix.
        from_hf: The head's settings from config.json.
    """

    architecture: str
    keys: dict[str, str]
    from_hf: Callable[[Foreign], HeadConfig]


@dataclass(frozen=True)
class Family:
    """A model family as a table.

    Attributes:
        name: ``model_type`` in config.json.
        prefix: Name of the base model inside headed ones, such as ``bert``.
        keys: Our module or parameter name below ``encoder`` to the foreign one; ``{i}`` is the block.
        heads: Head name to its table; those of a bare model come last.
        from_hf: Encoder settings from config.json.
        to_hf: Fields of config.json from the encoder settings.
        bare: Name of the transformers class without a head.
        pad_counts: Whether padding takes positions; RoBERTa counts real tokens only.
        presets: Sizes by name, in the fields of config.json.
    """

    name: str
    prefix: str
    keys: dict[str, str]
    heads: dict[str, HeadTable]
    from_hf: Callable[[Foreign], TransformerConfig]
    to_hf: Callable[[TransformerConfig], dict[str, Any]]
    bare: str
    pad_counts: bool = True
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
