"""The report of a pretraining run as one HTML file that makes no request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from tunesmith.base.config import toml_text
from tunesmith.report.figure import Curve
from tunesmith.report.loss_plot import loss_curve
from tunesmith.report.page import Plate, render_page
from tunesmith.report.table import bytes_text, count_text, number_text, seconds_text
from tunesmith.report.trial import finite

Look = Mapping[str, int | float | None]
"""One look at the dev split: step, epoch, tokens, seconds, train_loss, dev_loss, and train_<term> of each loss term."""


@dataclass(frozen=True)
class Term:
    """One term of the loss, at the end of the run.

    Attributes:
        name: Its name, as in "lm".
        loss: On the dev split; None if it was not measured.
        constant: What the best constant guess gets; None if it is not known.
    """

    name: str
    loss: float | None
    constant: float | None


def render_training(
    curve: Sequence[Look],
    metrics: Mapping[str, object],
    settings: Mapping[str, object],
    cleaning: Mapping[str, object] | None = None,
) -> str:
    """The whole report as the text of an HTML file.

    Args:
        curve: The looks at the dev split, in order; values that are absent, None or not finite are left out.
        metrics: What ``metrics.json`` holds, and the ``state`` of a run that is not finished; an absent number is left
            out.
        settings: All settings of the run.
        cleaning: What ``cleaning.json`` holds; None where nothing was cleaned.
    """
    terms = loss_terms(curve, metrics)
    constant = constant_loss(metrics)
    curves = [_plate(_curve(curve, against, constant), f"loss over {against}") for against in ("tokens", "minutes")]
    pictures = [_plate(_term_curve(curve, term), term.name) for term in terms] if len(terms) > 1 else []
    model, objective = _named(settings, "model", "preset"), _named(settings, "objective", "name")
    return render_page(
        "training.html",
        {
            "title": " · ".join(["Pretraining", *(name for name in (model, objective) if name)]),
            "verdict": verdict(metrics),
            "curves": [plate for plate in curves if plate.svg],
            "lowest": lowest(curve),
            "has_constant": constant is not None,
            "terms": terms if len(terms) > 1 else [],
            "term_curves": [plate for plate in pictures if plate.svg],
            "below": below,
            "number_text": number_text,
            "cleaning": cleaning,
            "facts": facts(metrics, settings),
            "settings": toml_text(settings),
            "next_steps": next_steps(metrics),
        },
    )


def verdict(metrics: Mapping[str, object]) -> str:
    """How good the model is, and how much better than an answer that never looks at the text."""
    loss, constant = finite(metrics.get("validation_loss")), constant_loss(metrics)
    if loss is None:
        return "The run has no validation loss."
    unit = " nats per target" if len(loss_terms((), metrics)) < 2 else ""
    sentence = f"The validation loss is {number_text(loss)}{unit}"
    if constant is not None:
        sentence += f", {below(loss, constant)} the best constant guess ({number_text(constant)})"
    dev = _split(metrics, "dev")
    perplexity, bits = dev.get("perplexity"), dev.get("bits_per_byte")
    more = [] if perplexity is None else [f"perplexity {_perplexity_text(perplexity)}"]
    more += [] if bits is None else [f"{number_text(bits)} bits per byte"]
    return f"{sentence}{'; ' if more else ''}{', '.join(more)}."


def below(loss: float, constant: float) -> str:
    """How far a loss lies from that of a constant guess, as in "41.3 % below"; the latter must be positive."""
    share = f"{100 * abs(constant - loss) / constant:.1f} %"
    return "level with" if share == "0.0 %" else f"{share} {'below' if loss < constant else 'above'}"


def constant_loss(metrics: Mapping[str, object]) -> float | None:
    """What the best constant guess gets; None if that is not known of every term, or nothing can be below it."""
    constant = finite(metrics.get("constant_loss"))
    unknown = [term for term in loss_terms((), metrics) if term.loss is not None and term.constant is None]
    told = isinstance(metrics.get("constant_losses"), Mapping)
    return None if constant is None or constant <= 0 or (told and unknown) else constant


def loss_terms(curve: Sequence[Look], metrics: Mapping[str, object]) -> list[Term]:
    """The terms of the loss that the dev split, the constant guesses or the looks know, in that order."""
    dev, constants = _split(metrics, "dev"), _split(metrics, "constant_losses")
    names = [name.removesuffix("_loss") for name in dev if name.endswith("_loss")]
    names += [*constants]
    names += [name.removeprefix("train_") for look in curve for name in look if name.startswith("train_")]
    return [Term(name, dev.get(f"{name}_loss"), constants.get(name)) for name in dict.fromkeys(names) if name != "loss"]


def lowest(curve: Sequence[Look]) -> str | None:
    """Where the dev loss was lowest, if that was before the end."""
    looks = [(value, look) for look in curve if (value := finite(look.get("dev_loss"))) is not None]
    if not looks:
        return None
    value, look = min(looks, key=lambda pair: pair[0])
    step, last = finite(look.get("step")), finite(looks[-1][1].get("step"))
    if value == looks[-1][0] or step is None or last is None:
        return None
    return f"The dev loss was lowest before the end: {number_text(value)} at step {step:,.0f} of {last:,.0f}."


def facts(metrics: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, str]:
    """What to know about the run, by name; what is not known is absent."""
    known = {
        "State": _text(metrics.get("state")),
        "Model": _named(settings, "model", "preset"),
        "Kind": _text(metrics.get("kind")),
        "Objective": _named(settings, "objective", "name"),
        "Input": _named(settings, "input", "name"),
        "Precision": _text(metrics.get("precision")),
    }
    numbers: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("Steps", "steps", _exact),
        ("Tokens", "tokens", _exact),
        ("Tokens per second", "tokens_per_second", _exact),
        ("Training time", "train_seconds", seconds_text),
        ("Peak memory", "peak_memory_bytes", bytes_text),
        ("Parameters of the model", "total_parameters", _exact),
        ("Parameters that trained", "trainable_parameters", _exact),
        ("Saved", "saved_bytes", bytes_text),
    )
    for heading, name, words in numbers:
        value = finite(metrics.get(name))
        known[heading] = None if value is None else words(value)
    return {name: text for name, text in known.items() if text}


def next_steps(metrics: Mapping[str, object]) -> list[str]:
    """Commands that a reader may type next; none of a run that is not finished: other verbs refuse it."""
    if "state" in metrics:
        return []
    steps = ["tunesmith tune RUN DATA --out TUNED"]
    if metrics.get("kind") in ("decoder", "encoder-decoder"):
        steps.append('tunesmith generate RUN --prompt "Once upon a time"')
    return steps


def _curve(curve: Sequence[Look], against: Literal["tokens", "minutes"], constant: float | None) -> str:
    lines: dict[Literal["train", "dev"], Curve] = {
        "train": _points(curve, against, "train_loss"),
        "dev": _points(curve, against, "dev_loss"),
    }
    return loss_curve(lines, constant=constant, against=against, label="loss")


def _term_curve(curve: Sequence[Look], term: Term) -> str:
    """A term while training; of the dev split, only what it is at the end."""
    points = _points(curve, "tokens", f"train_{term.name}")
    lines: dict[Literal["train", "dev"], Curve] = {"train": points}
    if points and term.loss is not None:
        lines["dev"] = [(points[-1][0], term.loss)]
    return loss_curve(lines, constant=term.constant, against="tokens", label=f"{term.name} loss", size="small")


def _points(curve: Sequence[Look], against: Literal["tokens", "minutes"], quantity: str) -> Curve:
    found: Curve = []
    for look in curve:
        x, y = finite(look.get("tokens" if against == "tokens" else "seconds")), finite(look.get(quantity))
        if x is not None and y is not None:
            found.append((x if against == "tokens" else x / 60, y))
    return found


def _plate(svg: str, name: str) -> Plate:
    return Plate(name, Markup(svg), "")


def _split(metrics: Mapping[str, object], name: str) -> dict[str, float | None]:
    values = metrics.get(name)
    return {str(key): finite(value) for key, value in values.items()} if isinstance(values, Mapping) else {}


def _named(settings: Mapping[str, object], key: str, name: str) -> str | None:
    """The name of a choice, which stands alone or in a table."""
    value = settings.get(key)
    return _text(value.get(name) if isinstance(value, Mapping) else value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _exact(value: float) -> str:
    return f"{value:,.0f}"


def _perplexity_text(value: float) -> str:
    """A perplexity, which may be anything from 1 to the exponential of hundreds."""
    return f"{value:.2f}" if value < 999.5 else count_text(value) if value < 1e12 else f"{value:.2e}"
