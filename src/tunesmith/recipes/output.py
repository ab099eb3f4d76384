"""The output folder of a run: refused, resumed or begun, and held for this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.base.config import read_toml, toml_text
from tunesmith.base.errors import StorageError
from tunesmith.base.files import empty_folder, locked, remove_quietly, write_atomic
from tunesmith.recipes.settings import check_same


class OutputFolder:
    """Hold the output folder: refuse, resume, or start; gives whether the run in it is finished.

    Raises:
        StorageError: The folder holds something, and neither ``resume`` nor ``overwrite`` is given.
        SettingError: Resuming with other settings.
    """

    def __init__(self, out: Path, record: Mapping[str, Any], *, resume: bool, overwrite: bool):
        self.out, self.record, self.resume, self.overwrite = out, record, resume, overwrite
        self._existed = out.exists()
        self._lock = locked(out)

    def __enter__(self) -> bool:
        self._lock.__enter__()
        try:
            return self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(None, None, None)
        if error[0] is not None and not self._existed and not (self.out / "checkpoint").exists():
            remove_quietly(self.out)  # a run that failed before it began leaves nothing

    def _open(self) -> bool:
        kept = self.out / "run.toml"
        for part in self.out.rglob(".*.part"):  # what a killed process was writing
            part.unlink(missing_ok=True)
        held = [path.name for path in self.out.iterdir() if not path.name.startswith(".")]
        if self.overwrite and held:
            if not kept.is_file() and not self.resume:
                raise StorageError(
                    f"{self.out}: holds files but no run.toml: not a run, so --overwrite leaves it alone"
                )
            empty_folder(self.out)
        elif self.resume and kept.is_file():
            check_same(self.out, read_toml(kept), self.record)
            return (self.out / "metrics.json").is_file()
        elif held:
            raise StorageError(f"{self.out}: already holds {held[0]}: add --resume to go on, --overwrite to start anew")
        write_atomic(kept, toml_text(self.record))
        return False
