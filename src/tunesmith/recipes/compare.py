"""Compare methods: each method with each seed on the same splits, then a leaderboard and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.base import choices
from tunesmith.base.errors import SettingError
from tunesmith.base.files import write_json
from tunesmith.recipes.listener import Listener, Silent
from tunesmith.recipes.output import METRICS, OutputFolder, finished
from tunesmith.recipes.prepare import Prepared, prepare
from tunesmith.recipes.reporting import write_report
from tunesmith.recipes.settings import TuneSettings, nested, tune_settings
from tunesmith.recipes.tracking import check_track
from tunesmith.recipes.tune import run_toml, run_tune
from tunesmith.report.table import Row


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder: Where everything stands: leaderboard.csv, report.html, METHOD/seed-N.
        rows: The leaderboard, best on the dev split first; figures are of the test split where there is one.
    """

    folder: Path
    rows: list[Row]


def compare(
    model: str | Path,
    data: str | Path,
    *,
    methods: Sequence[str],
    seeds: int = 3,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Comparison:
    """Tune with each method and seed, and compare.

    Args:
        model: Folder, hub id, preset, run or adapter.
        data: File, folder with splits, or hub id.
        methods: Names of methods.
        seeds: Seeds for each method: 0, 1, ...
        out: Folder of the comparison.
        settings: Deep settings for all runs; those of one method are named ``method.<name>.*``.
        resume: Go on with what stands in ``out``; finished runs are kept.
        overwrite: Delete what stands in ``out``.
        listener: Hears of the progress.

    Raises:
        UserError: Something that the caller can mend; one line says what.
    """
    return run_compare(
        model,
        data,
        Path(out),
        nested(settings or {}),
        methods=methods,
        seeds=seeds,
        resume=resume,
        overwrite=overwrite,
        listener=listener,
    )


def run_compare(
    model: str | Path,
    data: str | Path,
    out: Path,
    tree: Mapping[str, Any],
    *,
    methods: Sequence[str],
    seeds: int,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
    prepared: Prepared | None = None,
) -> Comparison:
    """Compare with a tree of settings; see `compare`."""
    listener = listener or Silent()
    if not methods or len(set(methods)) != len(methods):
        raise SettingError(f"methods: must be names, each once, got {','.join(methods) or 'none'}")
    if seeds < 1:
        raise SettingError(f"seeds: must be at least 1, got {seeds}")
    per_method = {name: _settings_for(name, tree, methods) for name in methods}
    first = next(iter(per_method.values()))
    check_track(first.train.track)
    record = {
        **run_toml("compare", model, data, first),
        "methods": list(methods),
        "seeds": seeds,
        "method": {name: settings.method.model_dump(mode="json") for name, settings in per_method.items()},
    }
    with OutputFolder(out, record, resume=resume, overwrite=overwrite):
        prepared = prepared or prepare(data, first)
        for note in prepared.notes:
            listener.note(note)
        quiet = Prepared(prepared.source, prepared.task, prepared.tables, [], prepared.facts)
        runs: dict[str, list[tuple[int, Path, Mapping[str, Any]]]] = {}
        rows: list[Row] = []
        for name, settings in per_method.items():
            for seed in range(settings.train.seed, settings.train.seed + seeds):
                folder = out / name / f"seed-{seed}"
                listener.stage(f"{name}, seed {seed}")
                metrics = finished(folder)
                if metrics is None:
                    seeded = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": seed})})
                    run = run_tune(model, data, folder, seeded, resume=True, listener=listener, prepared=quiet)
                    metrics = run.metrics
                runs.setdefault(name, []).append((seed, folder, metrics))
        rows = write_report(out, runs, prepared.task, facts={**prepared.facts, "Model": str(model)})
        best = rows[0]
        means = {row.split: {row.metric: row.mean} for row in (best.choice, best) if row is not None}
        write_json(out / METRICS, {"metric": best.metric, "split": best.split, "best": best.method, **means})
    return Comparison(out, rows)


def _settings_for(name: str, tree: Mapping[str, Any], methods: Sequence[str]) -> TuneSettings:
    """Settings of one method: ``method.<name>`` holds its own fields, and nothing else may stand there."""
    fields = tree.get("method", {})
    if not isinstance(fields, Mapping):
        raise SettingError(f"method: the methods are named by --methods, got {fields!r}: leave it out")
    own = fields.get(name, {})
    if not isinstance(own, Mapping):
        raise SettingError(f"method.{name}: must be a table of its settings, got {own!r}: set method.{name}.FIELD=...")
    for key in sorted(set(fields) - set(methods)):
        if key in choices.names("method"):
            raise SettingError(
                f"method.{key}: {key} is not compared: add it to --methods (now {','.join(methods)}), "
                "or leave its settings out"
            )
        raise SettingError(f"method.{key}: say which method it is for: method.{name}.{key}=...")
    rest = {key: value for key, value in tree.items() if key != "method"}
    return tune_settings(rest, {"method": {"name": name, **own}})
