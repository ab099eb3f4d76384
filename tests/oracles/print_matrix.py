"""A pytest plugin: which families and heads were equal to transformers', as a table at the end of the run.

    make parity

A cell is ``ok`` if every test that compared that class passed, ``FAILED`` if one did not, ``never`` if none compared
it (DeBERTa's rtd has no class in transformers), and ``-`` where the family has no such head.
"""

import sys

import pytest

from tunesmith.base import choices


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    """Put the compared classes into the test's report, which also travels between processes."""
    parity = sys.modules.get("parity")
    if parity is not None and call.when == "call":
        item.user_properties += [("compared", name) for name in dict.fromkeys(parity.CHECKED)]
        parity.CHECKED.clear()


def pytest_terminal_summary(terminalreporter):
    """Print the table."""
    ended = {"ok": set(), "FAILED": set()}
    for outcome, shown in (("passed", "ok"), ("failed", "FAILED")):
        for report in terminalreporter.getreports(outcome):
            ended[shown] |= {name for key, name in report.user_properties if key == "compared"}
    table = matrix(ended["ok"], ended["FAILED"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("equal to transformers: family x head")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def matrix(passed, failed):
    """Rows of cells, the names of heads first."""
    tables = {name: choices.module("model", name).FAMILY for name in choices.names("model") if name != "custom"}
    heads = sorted({head for table in tables.values() for head in table.heads})
    rows = [["", "bare", *heads]]
    for name, table in tables.items():
        classes = [table.bare, *(table.heads[head].architecture if head in table.heads else None for head in heads)]
        rows.append([name, *(_cell(each, passed, failed) for each in classes)])
    return rows


def _cell(architecture, passed, failed):
    if architecture is None:
        return "-"
    return "FAILED" if architecture in failed else "ok" if architecture in passed else "never"
