"""Start-up: help and lists answer without torch, which alone would cost seconds."""

import subprocess
import sys

import pytest
import torch

from tunesmith.cli import app as application

PROBE = """
import sys
from tunesmith.cli.app import main
try:
    main({arguments})
except SystemExit as left:
    assert left.code == 0, left.code
heavy = {{"torch", "numpy", "transformers", "sklearn", "matplotlib", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "method"], ["tune", "--help"], ["generate", "--help"]]
)
def test_help_and_lists_import_nothing_heavy(arguments):
    code = PROBE.format(arguments=arguments)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout


def test_a_full_gpu_is_one_line(monkeypatch, capsys):
    def fail(**_):
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")

    monkeypatch.setattr(application, "app", fail)
    with pytest.raises(SystemExit) as left:
        application.main(["list"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("out of GPU memory: set a smaller")


def test_list_names_every_choice():
    found = subprocess.run([sys.executable, "-m", "tunesmith", "list"], capture_output=True, text=True, check=True)
    for name in ("lora", "linear_probe", "bitfit", "full", "bert", "roberta", "electra", "tagging", "gelu"):
        assert f"\n  {name} " in found.stdout


@pytest.mark.parametrize(("family", "name"), [("method", "lora"), ("model", "bert"), ("position", "learned")])
def test_show_gives_fields_paper_and_file(family, name):
    command = [sys.executable, "-m", "tunesmith", "show", family, name]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Paper:" in found
    assert f"{name}.py" in found
