"""tunesmith: tune, compare and share transformers on one small machine.

>>> import tunesmith as ts
>>> run = ts.tune("path-or-hub-id", "reviews.csv", method="lora", rank=16, out="runs/reviews")  # doctest: +SKIP
>>> run.predict(["What a film!"])  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith import tuning as tuning
    from tunesmith.models.model import Model as Model
    from tunesmith.recipes.compare import compare as compare
    from tunesmith.recipes.evaluate import evaluate as evaluate
    from tunesmith.recipes.export import convert as convert
    from tunesmith.recipes.export import export as export
    from tunesmith.recipes.generate import generate as generate
    from tunesmith.recipes.load import load as load
    from tunesmith.recipes.predict import predict as predict
    from tunesmith.recipes.pretrain import pretrain as pretrain
    from tunesmith.recipes.run import Run as Run
    from tunesmith.recipes.run import load_run as load_run
    from tunesmith.recipes.save import save as save
    from tunesmith.recipes.score import score as score
    from tunesmith.recipes.tune import tune as tune

__version__ = "0.1.0"

_HOMES = {
    "Model": "models.model:Model",
    "Run": "recipes.run:Run",
    "compare": "recipes.compare:compare",
    "convert": "recipes.export:convert",
    "evaluate": "recipes.evaluate:evaluate",
    "export": "recipes.export:export",
    "generate": "recipes.generate:generate",
    "load": "recipes.load:load",
    "load_run": "recipes.run:load_run",
    "predict": "recipes.predict:predict",
    "pretrain": "recipes.pretrain:pretrain",
    "save": "recipes.save:save",
    "score": "recipes.score:score",
    "tune": "recipes.tune:tune",
    "tuning": "tuning:",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Public names, imported when they are first used: ``import tunesmith`` alone is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    home, _, attribute = _HOMES[name].partition(":")
    module = importlib.import_module(f"tunesmith.{home}")
    return getattr(module, attribute) if attribute else module
