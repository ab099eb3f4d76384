"""The head of a new task on a model that may have one already: what of it is kept, what is fresh, and why."""

import re

from tunesmith.models._checkpoint import why_not_hf
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.recipes.open import task_head
from tunesmith.tasks import TaskConfig
from tunesmith.tuning import MethodConfig


def head_for(base: Model, task: TaskConfig, method: MethodConfig) -> HeadConfig:
    """The head to train: the model's own where its outputs are the task's, else the family's; the method may change it.

    A run of ours may have a head that transformers has not (a probe of mean features). Methods that save a Hugging
    Face folder take the family's head then.

    Raises:
        CheckpointError: The family has no head for the task.
    """
    family = task.head(task_head(base, task.problem))
    own = base.config.head
    if own is None or _other_outputs(base, family, task.labels) is not None:
        return method.head(family)
    if method.saves == "model" and why_not_hf(base) is not None:
        return method.head(family)
    return method.head(task.head(own))


def put_head(base: Model, head: HeadConfig | None, *, labels: tuple[str, ...], seed: int) -> Model:
    """The model with another head: weights come from its own where they mean the same, else they are fresh.

    A hidden layer is kept for any task, as far as its shape fits; the output layer where `why_fresh` has no reason.
    """
    own = base.config.head
    if own is not None and head is not None and why_fresh(base, head, labels) is not None:
        output = base.family.heads[own.choice_name()].keys["output"]
        base = base.with_head(None)
        for part in ("weight", "bias"):
            base.aside.pop(f"{output}.{part}", None)
    return base.with_head(head, labels=labels, seed=seed)


def why_fresh(base: Model, head: HeadConfig, labels: tuple[str, ...]) -> str | None:
    """Why the output layer of the model's own head is of no use to another one; None where it is, or there is none."""
    own = base.config.head
    if not isinstance(own, ClassifyConfig | TagConfig):
        return None
    other = _other_outputs(base, head, labels)
    if other is not None:
        return other
    for field in ("pooling", "layer", "hidden") if isinstance(own, ClassifyConfig) else ():
        was, now = getattr(own, field), getattr(head, field)
        if was != now:
            return f"the head of {base.source} has {field} = {was}, this one {now}"
    return None


def _other_outputs(base: Model, head: HeadConfig, labels: tuple[str, ...]) -> str | None:
    """What sets the outputs of the model's own head apart from those of another one; None: they mean the same."""
    own, names = base.config.head, base.config.labels
    if type(own) is not type(head) or not isinstance(own, ClassifyConfig | TagConfig):
        return f"the head of {base.source} is for another task"
    if isinstance(own, ClassifyConfig) and isinstance(head, ClassifyConfig):
        if (own.problem == "regression") != (head.problem == "regression"):
            return f"the head of {base.source} is for another task"
    named = not all(re.fullmatch(r"LABEL_\d+", name) for name in names)  # transformers' word for no name
    if own.num_labels != max(1, len(labels)) or (named and names != labels):
        return (
            f"the labels of {base.source} are {_some(names) if named else own.num_labels}, the data's {_some(labels)}"
        )
    return None


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "") or "numbers"
