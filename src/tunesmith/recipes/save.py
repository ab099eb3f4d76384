"""Save a model as a Hugging Face folder, with what a method injected folded in."""

from pathlib import Path

from tunesmith.models import _checkpoint
from tunesmith.models.model import Model
from tunesmith.surgery.replace import replace
from tunesmith.tuning.lora import LoRALinear


def save(model: Model, folder: str | Path) -> None:
    """Write a model (config, weights, tokenizer) in the Hugging Face layout; the model stays as it is.

    Raises:
        CheckpointError: transformers has no class for this head; the line says why.
        StorageError: The folder cannot be written.
    """
    injected = {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    merged = [module for module in injected.values() if not module.merged]
    try:
        for name, module in injected.items():
            module.merge()
            replace(model, name, module.base)
        _checkpoint.save(model, folder)
    finally:
        for name, module in injected.items():
            replace(model, name, module)
        for module in merged:
            module.unmerge()
