"""The output folder of a run: refused, resumed or begun, and held for this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.base.config import read_toml, toml_text
from tunesmith.base.errors import CheckpointError, SettingError, StorageError
from tunesmith.base.files import (
    empty_folder,
    locked,
    read_json,
    remove_parts,
    remove_quietly,
    storage_error,
    write_atomic,
)
from tunesmith.recipes.settings import check_same
from tunesmith.train.checkpoint import LAST

METRICS = "metrics.json"
_RECORD = "run.toml"
_BEFORE = ".before"  # what --overwrite replaces, kept until there is something in its place; whole with its run.toml
_GONE = ".gone"  # what is being deleted


def finished(folder: Path) -> dict[str, Any] | None:
    """metrics.json of a finished run; None where it is not there, or does not hold what a run writes into it."""
    try:
        metrics = read_json(folder / METRICS)
    except CheckpointError:
        return None
    scores, name = metrics.get("dev"), metrics.get("metric")
    whole = isinstance(scores, Mapping) and isinstance(scores.get(name), int | float)
    return metrics if whole else None


def need_finished(folder: Path) -> dict[str, Any]:
    """metrics.json of a run.

    Raises:
        CheckpointError: The run is unfinished, or the file is damaged.
    """
    metrics = finished(folder)
    if metrics is not None:
        return metrics
    if (folder / METRICS).is_file():
        raise CheckpointError(
            f"{folder / METRICS}: damaged, so this run does not count as finished: the same command with --resume "
            "makes it again"
        )
    raise CheckpointError(f"{folder}: this run is unfinished: the same command with --resume goes on with it")


class OutputFolder:
    """Hold the output folder: refuse, resume, or start; gives whether the run in it is finished.

    A run that fails before there is anything to resume leaves the folder as it was, also with ``overwrite``.

    Raises:
        StorageError: The folder holds something, and neither ``resume`` nor ``overwrite`` is given.
        SettingError: Resuming with other settings, or both ``resume`` and ``overwrite``.
    """

    def __init__(self, out: Path, record: Mapping[str, Any], *, resume: bool, overwrite: bool):
        if resume and overwrite:
            raise SettingError("--overwrite: contradicts --resume: give one of them")
        self.out, self.record, self.resume, self.overwrite = out, record, resume, overwrite
        self._lock = locked(out)
        self._started = False

    def __enter__(self) -> bool:
        self._lock.__enter__()
        try:
            return self._open()
        except BaseException:
            self._leave(failed=True)
            raise

    def __exit__(self, *error: object) -> None:
        self._leave(failed=error[0] is not None)

    def _open(self) -> bool:
        kept = self.out / _RECORD
        remove_quietly(self.out / _GONE)
        if (self.out / _BEFORE).exists():  # a process that was overwriting has been killed
            self._settle()
        held = sorted(path.name for path in self.out.iterdir() if not path.name.startswith("."))
        if self.overwrite and held:
            if not kept.is_file():
                raise StorageError(
                    f"{self.out}: holds files but no run.toml: not a run, so --overwrite leaves it alone"
                )
            self._started = True
            self._put_aside(held)
        elif self.resume and kept.is_file():
            check_same(self.out, read_toml(kept), self.record)
            remove_parts(self.out)
            for done in self.out.rglob(METRICS):  # and what it had not yet tidied up
                if finished(done.parent) is not None:
                    remove_quietly(done.parent / "checkpoint")
            return finished(self.out) is not None
        elif held:
            raise StorageError(f"{self.out}: already holds {held[0]}: add --resume to go on, --overwrite to start anew")
        self._started = True
        write_atomic(kept, toml_text(self.record))
        return False

    def _leave(self, *, failed: bool) -> None:
        try:
            if failed and self._started:
                self._settle()
            elif not failed:
                self._drop_before()
        finally:
            self._lock.__exit__(None, None, None)

    def _settle(self) -> None:
        """Keep what a run that failed has left if it can be resumed; else put back what stood here before."""
        before = self.out / _BEFORE
        moving = before.exists() and not (before / _RECORD).exists()  # killed while putting aside or back
        patterns = [*(f"checkpoint/{pattern}" for pattern in LAST), METRICS]
        results = [path for pattern in patterns for path in self.out.rglob(pattern)]
        if not moving and any(before not in path.parents for path in results):
            self._drop_before()
            return
        if not moving:
            empty_folder(self.out, but=_BEFORE)
        self._put_back()

    def _put_aside(self, names: list[str]) -> None:
        try:
            (self.out / _BEFORE).mkdir()
            for name in sorted(names, key=lambda name: name == _RECORD):  # the record is the last to go
                (self.out / name).rename(self.out / _BEFORE / name)
        except OSError as error:
            raise storage_error(self.out, error) from None

    def _put_back(self) -> None:
        before = self.out / _BEFORE
        if not before.exists():
            return
        try:
            for path in sorted(before.iterdir(), key=lambda path: path.name != _RECORD):  # and the first to come back
                path.rename(self.out / path.name)
            before.rmdir()
        except OSError as error:
            raise storage_error(self.out, error) from None

    def _drop_before(self) -> None:
        before = self.out / _BEFORE
        if before.exists():
            before.rename(self.out / _GONE)
            remove_quietly(self.out / _GONE)
