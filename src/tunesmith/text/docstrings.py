"""A labelled data set that every Python carries: its standard library's docstrings, by area.

The sources are parsed, never imported. The rows differ a little from one Python to the next, as the library
does.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunesmith.base.errors import DataError

MIN_WORDS = 4

# Areas follow the chapters of the library's documentation; a module that is named nowhere is left out.
AREAS = {
    "data types and maths": (
        "_collections_abc _pydatetime _pydecimal _strptime _weakrefset bisect calendar collections colorsys "
        "copy datetime decimal enum fractions functools graphlib hashlib heapq hmac numbers operator pprint "
        "random reprlib secrets statistics weakref zoneinfo"
    ),
    "text and markup": ("_markupbase codecs difflib gettext html locale re shlex string stringprep textwrap xml"),
    "files and formats": (
        "_compression _pyio aifc bz2 chunk compression configparser csv dbm filecmp fileinput fnmatch "
        "genericpath glob gzip imghdr io json linecache lzma ntpath os pathlib pickle pickletools plistlib "
        "posixpath shelve shutil sndhdr sqlite3 stat sunau tarfile tempfile tomllib uu wave xdrlib zipfile"
    ),
    "concurrent execution": (
        "_threading_local asyncio concurrent contextvars multiprocessing queue sched selectors signal "
        "subprocess threading"
    ),
    "network and internet": (
        "asynchat asyncore base64 cgi email ftplib http imaplib ipaddress mailbox mailcap mimetypes netrc "
        "nntplib nturl2path poplib quopri smtpd smtplib socket socketserver ssl telnetlib urllib uuid "
        "webbrowser wsgiref xmlrpc"
    ),
    "language runtime": (
        "__future__ _py_abc _py_warnings _sitebuiltins abc annotationlib contextlib copyreg ctypes "
        "dataclasses imp importlib keyword opcode pkgutil platform runpy site sysconfig traceback types "
        "warnings zipimport"
    ),
    "development and GUI": (
        "argparse ast bdb cProfile cgitb cmd code codeop compileall curses dis distutils doctest getopt "
        "inspect logging modulefinder optparse pdb profile profiling pstats py_compile pyclbr pydoc "
        "rlcompleter symtable tabnanny timeit tkinter token tokenize trace tracemalloc turtle typing "
        "unittest venv zipapp"
    ),
}
SKIPPED_FOLDERS = {"__pycache__", "_bundled", "_vendor", "idle_test", "test", "tests"}


@dataclass(frozen=True)
class Rows:
    """Texts and their labels, equally many."""

    texts: list[str]
    labels: list[str]


def standard_library_docstrings(*, limit: int = 4000, seed: int = 0) -> Rows:
    """First paragraphs of the public docstrings in this Python's standard library, in 7 areas.

    White space is normalised. A paragraph that occurs twice is taken once; one that occurs in two areas, has
    fewer than four words, or contains its own label is left out.

    Args:
        limit: Most rows to give, at least 1; of more than that a random part, still in order (area by area).
        seed: Key of the random choice, at least 0.

    Raises:
        DataError: This Python comes without its library's sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    labels: dict[str, str | None] = {}  # None: found in two areas
    for label, modules in AREAS.items():
        for path in _sources(folder, modules.split()):
            for text in _first_paragraphs(path):
                if label.casefold() not in text.casefold() and labels.setdefault(text, label) != label:
                    labels[text] = None
    rows = [(text, label) for text, label in labels.items() if label is not None]
    if not rows:
        raise DataError(f"{folder}: holds no Python sources with docstrings: use a Python with its standard library")
    if len(rows) > limit:
        stream = np.random.Generator(np.random.Philox(key=seed))
        rows = [rows[i] for i in np.sort(stream.choice(len(rows), limit, replace=False))]
    return Rows([text for text, _ in rows], [label for _, label in rows])


def _sources(folder: Path, modules: list[str]) -> Iterator[Path]:
    """The source files of top-level modules, in an order that does not depend on the file system."""
    for module in modules:
        if (folder / f"{module}.py").is_file():
            yield folder / f"{module}.py"
        for path in sorted((folder / module).rglob("*.py")):
            if SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts):
                yield path


def _first_paragraphs(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules hold invalid escapes
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # a template or a deliberately broken file
            return
    nodes: list[ast.AST] = [tree]
    for node in nodes:  # it grows: statements only, which takes half the time of `ast.walk`
        nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not isinstance(node, ast.Module) and node.name.startswith("_"):
            continue
        words = (ast.get_docstring(node) or "").split("\n\n", 1)[0].split()
        if len(words) >= MIN_WORDS and words[0] != ">>>":
            yield " ".join(words)
