"""Load a model by any name."""

from pathlib import Path

from tunesmith.models.model import Model
from tunesmith.recipes.open import is_adapter, is_run
from tunesmith.recipes.saved import open_adapter, open_base, open_run


def load(name: str | Path) -> Model:
    """A model from a run, a PEFT adapter, a Hugging Face folder, a hub id or a preset (what is attached stays so).

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    folder = Path(name)
    if is_run(folder):
        return open_run(folder).model
    if is_adapter(folder):
        return open_adapter(folder).model
    return open_base(str(name))
