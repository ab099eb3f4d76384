"""``tunesmith generate``."""

import io
import json
import sys
from typing import Annotated

import typer

from tunesmith.base.errors import SettingError
from tunesmith.cli.options import FileOption, ModelArgument, settings_tree


def generate(
    model: ModelArgument,
    rest: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|-] [key=value]...",
            help="Prompts: JSON lines with text or source, a table, or plain lines; - for standard input. "
            "Then settings: max_new_tokens, do_sample, temperature, top_k, top_p, num_beams, seed, stop, ...",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="One prompt, in place of a file.")] = None,
    file: FileOption = None,
) -> None:
    """Go on from prompts, or answer them; one JSON object a line on standard output."""
    given = list(rest or [])
    source = given.pop(0) if prompt is None and given and "=" not in given[0] else None
    if prompt is None and source is None:
        raise SettingError("tunesmith generate: give --prompt TEXT, a FILE of prompts, or - for standard input")
    tree = settings_tree(file, given)

    from tunesmith.base.config import build
    from tunesmith.recipes.generate import GenerateSettings, generate_each
    from tunesmith.recipes.prompts import read_prompts

    settings = build(GenerateSettings, tree)
    if prompt is not None:
        if sys.stdout.isatty():
            for _ in generate_each(model, [prompt], settings, names=["--prompt"], hear=_say):
                print()
            return
        texts, names = [prompt], ["--prompt"]
    else:
        if source == "-" and isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale says
        texts, names = read_prompts(str(source), sys.stdin if source == "-" else None)
    for text in generate_each(model, texts, settings, names=names):
        print(json.dumps({"text": text}, ensure_ascii=False), flush=True)


def _say(piece: str) -> None:
    print(piece, end="", flush=True)
