"""A user's folder, the command line in this process, and what must hold when it refuses something."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tunesmith.cli.app import main

QUICK = ("train.max_steps=2", "train.evaluations=1", "train.precision=fp32")


@dataclass
class Desk:
    """Where a case works.

    Attributes:
        folder: Empty at first; all that a case makes or changes is in it.
        checkpoint: A good tiny BERT, shared: not to be changed.
        reviews: A good classification file, shared.
        files: Good files of other tasks by task, shared.
        watched: Folders that a failure must leave as they were.
    """

    folder: Path
    checkpoint: Path
    reviews: Path
    files: dict[str, Path]
    capture: pytest.CaptureFixture[str]
    watched: list[Path] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """The output folder; it does not exist yet."""
        return self.folder / "out"

    def write(self, name: str, content: bytes | str) -> Path:
        """A file of the user's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def copy(self, source: Path, name: str) -> Path:
        """A copy of a folder, to be damaged."""
        return Path(shutil.copytree(source, self.folder / name))

    def run(self, *arguments: object) -> tuple[int, list[str], str]:
        """Exit code, lines on standard error, and standard output."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        seen = self.capture.readouterr()
        return int(str(left.value.code)), [line for line in seen.err.splitlines() if line.strip()], seen.out

    def refused(self, *arguments: object, says: str, notes: bool = False) -> str:
        """Run what must be refused, in one line that says ``says``, with every file as it was before; give the line.

        Args:
            arguments: The command line.
            says: What the line must hold.
            notes: Whether notes of the run may stand before it.
        """
        before = self.state()
        code, lines, printed = self.run(*arguments)
        text = "\n".join(lines)
        assert code == 2, text
        assert "Traceback" not in text, text
        assert says in lines[-1], text
        assert notes or len(lines) == 1, text
        assert not printed, printed
        after = self.state()
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        assert not changed, f"{sorted(changed)} changed; said: {lines[-1]}"
        return lines[-1]

    def state(self) -> dict[str, bytes]:
        """The bytes of all files, and the names of all folders."""
        paths = [path for root in (self.folder, *self.watched) for path in root.rglob("*")]
        return {str(path): path.read_bytes() if path.is_file() else b"no file" for path in paths}


@pytest.fixture
def desk(tmp_path, checkpoints, tiny_data, capsys) -> Desk:
    """The user's desk: a folder, a good checkpoint, good data."""
    files = {task: data.file for task, data in tiny_data.items()}
    watched = [checkpoints["bert"], files["classification"].parent]
    return Desk(tmp_path, checkpoints["bert"], files["classification"], files, capsys, watched)


@pytest.fixture(scope="session")
def runs(tmp_path_factory, checkpoints, tiny_data) -> Callable[..., Path]:
    """Finished runs by method and task, each made once and shared: not to be changed."""
    root = tmp_path_factory.mktemp("runs")

    def make(method: str, task: str = "classification") -> Path:
        folder = root / f"{method}-{task}"
        if not folder.exists():
            settings = ["method.cache=none"] if method == "linear_probe" else []
            call = ["tune", checkpoints["bert"], tiny_data[task].file, "--out", folder, "--method", method]
            with pytest.raises(SystemExit) as left:
                main([*map(str, call), *settings, *QUICK])
            assert left.value.code == 0
        return folder

    return make
