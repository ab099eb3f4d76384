"""The command ``tunesmith``: its verbs, and how errors leave it."""

import os
import sys
from collections.abc import Sequence

import typer

from tunesmith.base.errors import UserError
from tunesmith.cli import (
    compare,
    convert,
    evaluate,
    export,
    generate,
    listing,
    plan,
    predict,
    pretrain,
    quickstart,
    tune,
)

_INTERRUPTED = 130

app = typer.Typer(
    name="tunesmith",
    help="Pretrain, tune, compare, run and share transformers.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quickstart")(quickstart.quickstart)
app.command("tune")(tune.tune)
app.command("compare")(compare.compare)
app.command("pretrain")(pretrain.pretrain)
app.command("plan")(plan.plan)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("export")(export.export)
app.command("convert")(convert.convert)
app.command("list")(listing.list_choices)
app.command("show")(listing.show)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the user's (one line on standard error), 130 Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=given or ["--help"], prog_name="tunesmith", standalone_mode=False)
    except UserError as error:
        sys.exit(_fail(str(error)))
    except typer.TyperException as error:  # a verb, argument or option that does not exist, or does not fit
        where = " ".join(["tunesmith", *given[:1]])
        sys.exit(_fail(f"{where}: {error.format_message().rstrip('.')}: see tunesmith --help"))
    except BrokenPipeError:  # the reader of standard output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        sys.exit(_fail("out of memory: set a smaller train.micro_batch_tokens or data.max_tokens"))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; this file must not import torch
            raise
        sys.exit(_fail("out of GPU memory: set a smaller train.micro_batch_tokens or data.max_tokens"))
    if code == _INTERRUPTED:  # typer catches Ctrl-C itself
        resumes = given[:1] in (["tune"], ["compare"], ["pretrain"], ["quickstart"])
        print("stopped" + ": the same command with --resume goes on" * resumes, file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return 2
