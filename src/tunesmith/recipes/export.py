"""Write models for others: a run as a PEFT adapter or a merged folder, any checkpoint as a plain folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import new_folder, write_atomic
from tunesmith.models._checkpoint import save, why_not_hf
from tunesmith.models.model import Model
from tunesmith.recipes.open import lineage, made_on, need_tokenizer
from tunesmith.recipes.run import Run, load_run
from tunesmith.recipes.saved import open_base
from tunesmith.tuning._peft import save_peft, why_not_peft
from tunesmith.tuning.lora import AttachedLoRA


def convert(name: str | Path, out: str | Path) -> Model:
    """Write any supported checkpoint in the Hugging Face layout.

    Raises:
        CheckpointError: It cannot be read, or transformers cannot express it.
        StorageError: The folder is not empty or cannot be written.
    """
    target = Path(out)
    with new_folder(target):
        model = open_base(str(name))
        _check_expressible(model, str(name))
        save(model, target)
    return model


def export(name: str | Path, out: str | Path, *, form: Literal["peft", "merged"]) -> None:
    """Write a run for other tools, with a model card.

    Args:
        name: Folder of the run.
        out: New folder.
        form: ``peft``: an adapter folder; ``merged``: a whole Hugging Face folder.

    Raises:
        CheckpointError: The run has no such form; the line says why.
        StorageError: The folder is not empty or cannot be written.
    """
    target = Path(out)
    with new_folder(target):
        run = load_run(name)
        if form == "merged":
            _check_expressible(run.model, str(name))
            if run.opened.attached is not None:
                run.opened.attached.merge()
                run.opened.attached.detach()
            save(run.model, target)
        else:
            attached = run.opened.attached
            if not isinstance(attached, AttachedLoRA):
                method = run.opened.record.method["name"] if run.opened.record else "this method"
                raise CheckpointError(f"{name}: PEFT has no adapter type for {method}: use --as merged")
            reason = why_not_peft(attached)
            if reason is not None:
                raise CheckpointError(f"{name}: PEFT cannot hold this adapter: {reason}: use --as merged")
            record = run.opened.record
            if record is not None and made_on(record.base) is not None:
                raise CheckpointError(
                    f"{name}: its base model {record.base} is an adapter or run, no model that PEFT can load: "
                    "use --as merged"
                )
            save_peft(target, attached, base=record.base if record else run.model.source)
            need_tokenizer(run.model).save(target)
        write_atomic(target / "README.md", model_card(run, form))


def model_card(run: Run, form: str) -> str:
    """A model card in Markdown with the metadata that the hub reads."""
    record = run.opened.record
    base = lineage(record.base)[-1] if record else ""
    method = record.method["name"] if record else ""
    base_name = Path(base).name if Path(base).is_absolute() else base
    scores = [
        f"| {split} | {metric} | {value:.4f} |"
        for split in ("dev", "test")
        for metric, value in _scores(run.metrics, split).items()
    ]
    tags = {"tags": "token-classification"}.get(run.task.problem, "text-classification")
    library = "peft" if form == "peft" else "transformers"
    labels = ", ".join(f"`{label}`" for label in run.task.labels[:50])
    lines = [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {tags}",
        f"base_model: {base_name}",
        "tags: [tunesmith]",
        "---",
        "",
        f"# {base_name}, tuned by {method}",
        "",
        f"A {run.task.choice_name()} model made with tunesmith from `{base_name}` by the method `{method}`.",
        "",
        f"Labels: {labels}." if labels else "The output is one number.",
        "",
        f"Texts are cut to {run.max_tokens} tokens.",
        "",
        "| split | metric | value |",
        "|---|---|---|",
        *scores,
        "",
        "The dev split chose the model; the test split, where there is one, was not looked at before the end.",
        "",
    ]
    return "\n".join(lines)


def _scores(metrics: Mapping[str, Any], split: str) -> Mapping[str, float]:
    found = metrics.get(split)
    return found if isinstance(found, Mapping) else {}


def _check_expressible(model: Model, name: str) -> None:
    reason = why_not_hf(model)
    if reason is not None:
        raise CheckpointError(
            f"{name}: cannot be written as a Hugging Face model: {reason}; tunesmith itself predicts with it"
        )
