"""``tunesmith quickstart``."""

from pathlib import Path

from tunesmith.cli.compare import print_comparison
from tunesmith.cli.options import OutOption, OverwriteOption, ResumeOption
from tunesmith.cli.progress import make_listener


def quickstart(
    out: OutOption = Path("runs/quickstart"), resume: ResumeOption = False, overwrite: OverwriteOption = False
) -> None:
    """Compare four methods on the docstrings of your own Python, with a real checkpoint, in minutes."""
    from tunesmith.recipes import quickstart as recipe

    found = recipe.quickstart(out, resume=resume, overwrite=overwrite, listener=make_listener())
    print_comparison(found.rows)
    best = out / found.rows[0].method / "seed-0"
    print(f"\nOpen {out / 'report.html'} in a browser. Next:")
    print(f'  echo "Return the square root of x." | tunesmith predict {best} -')
    print("  tunesmith compare MODEL your_texts.csv --out runs/mine     (columns: text,label)")
