"""Kill commands at random moments, resume them, and compare what they leave with undisturbed runs."""

import abc
import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import alternating
import peers


class Watch(abc.ABC):
    """Runs commands, kills them, and counts what is wrong.

    Args:
        root: Folder to work in.
        seed: Seed of the moments.

    Attributes:
        root: Folder to work in.
        draw: Gives the moments.
        counts: What happened, how often.
        faults: What is wrong, a line each.
    """

    def __init__(self, root: Path, *, seed: int):
        self.root = root
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    @abc.abstractmethod
    def command(self, job: str, out: Path) -> list[str | Path]:
        """What is typed behind `tunesmith`."""

    @abc.abstractmethod
    def state(self, out: Path) -> str:
        """How far a run had come, as the end of "killed ..."."""

    @abc.abstractmethod
    def check(self, out: Path, whole: Path, *, at_end: bool) -> None:
        """Compare what says it is finished with the undisturbed run; at the end all must be."""

    def cache(self, out: Path) -> Path:
        """The cache of a run."""
        return self.root / "cache"

    def places(self, out: Path) -> list[Path]:
        """Folders that belong to this run alone."""
        return [out]

    def start(self, job: str, out: Path) -> subprocess.Popen:
        """The job's command as a process of its own."""
        command = [sys.executable, "-m", "tunesmith", *self.command(job, out)]
        environment = {**os.environ, "TUNESMITH_CACHE": str(self.cache(out))}
        with (self.root / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def finish(self, job: str, out: Path) -> None:
        """Run the command to its end."""
        if self.start(job, out).wait() != 0:
            tail = (self.root / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            self.faults.append(f"{out.name}: the command failed: {' | '.join(tail)}")

    def kill(self, job: str, out: Path, *, after: float) -> float:
        """Start the command, or go on with it, and kill it after this many seconds; return how long it lived."""
        started = time.monotonic()
        process = self.start(job, out)
        try:
            process.wait(timeout=after)
            self.counts["ended before the kill"] += 1
            return time.monotonic() - started
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.counts["kills"] += 1
        self.counts[f"killed {self.state(out)}"] += 1
        self.counts["killed while writing a file"] += any(self.left_over(out, ".*.part"))
        return after

    def check_tidy(self, out: Path) -> None:
        """Name what a finished run should have deleted."""
        left = self.left_over(out, "*.part")
        left += [path for path in out.rglob("*") if path.name.startswith(".") or path.name == "checkpoint"]
        self.faults += [f"{path.relative_to(self.root)}: is left over" for path in dict.fromkeys(left)]

    def left_over(self, out: Path, pattern: str) -> list[Path]:
        """What there is of a pattern in the run's folders."""
        return [path for place in self.places(out) for path in place.rglob(pattern)]


def differing_files(run: Path, whole: Path, find: Callable[[Path], Sequence[Path]]) -> list[str]:
    """What differs between the files that are found in a run and in the undisturbed one."""
    found = []
    names = {path.relative_to(folder) for folder in (run, whole) for path in find(folder)}
    for name in sorted(names):
        if not (run / name).is_file() or not (whole / name).is_file():
            found.append(f"{name} is in one of the two only")
        elif (run / name).read_bytes() != (whole / name).read_bytes():
            found.append(f"{name} differs")
    return found


def main(benchmark: str, about: str | None, watcher: type[Watch], jobs: Sequence[str], *, kills: int) -> None:
    """Run undisturbed, then kill and resume until there are enough kills; publish the counts.

    Args:
        benchmark: Its name in the result.
        about: Its help.
        watcher: Does it.
        jobs: The commands, by name.
        kills: How many kills, if not said.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, help="JSON Lines file to append the result to")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{benchmark}-") as folder:
        watch = watcher(Path(folder), seed=arguments.seed)
        seconds = {}
        for job in jobs:
            before = time.monotonic()
            watch.finish(job, watch.root / f"{job} undisturbed")
            seconds[job] = time.monotonic() - before
        runs = 0
        while watch.counts["kills"] < arguments.kills and runs < 3 * arguments.kills and not watch.faults:
            job = jobs[runs % len(jobs)]
            out, whole = watch.root / f"{job} {runs}", watch.root / f"{job} undisturbed"
            for attempt in range(2 if runs % 3 == runs // 3 % 3 else 1):  # every third run, of another job each time
                moment = watch.draw.uniform(0, seconds[job])
                lived = watch.kill(job, out, after=moment)
                if lived < moment and attempt == 0:  # a whole run, faster than the undisturbed one was
                    seconds[job] = lived
                watch.check(out, whole, at_end=False)
            watch.finish(job, out)
            if not watch.faults:
                watch.check(out, whole, at_end=True)
            runs += 1
            print(f"{out.name}: {dict(watch.counts)}, {len(watch.faults)} faults", file=sys.stderr, flush=True)
        result: dict[str, object] = {
            "benchmark": benchmark,
            "runs": runs,
            **watch.counts,
            "faults": watch.faults,
            "undisturbed_seconds": {job: round(value, 1) for job, value in seconds.items()},
            "seconds": round(time.monotonic() - started),
            **peers.environment(),
        }
    alternating.publish(result, arguments.out)
    sys.exit(1 if watch.faults else 0)
