"""What every report is: one HTML file that makes no request, filled from a template."""

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from tunesmith.report.trial import plain

MAX_TEXT = 500


@dataclass(frozen=True)
class Plate:
    """A figure with its caption.

    Attributes:
        name: What it shows.
        svg: Trusted markup, made by `figure.svg_text`.
        caption: The sentence below it; may be empty.
    """

    name: str
    svg: Markup
    caption: str


def render_page(template: str, values: dict[str, object]) -> str:
    """The text of a page.

    Args:
        template: File name of the template, in this folder; it extends ``page.html``.
        values: What it shows. All but `Markup` is escaped.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: resources.files(__package__ or "").joinpath(name).read_text("utf-8")),
    )
    environment.filters["integrity"] = _integrity
    environment.filters["plain"] = lambda text, limit=MAX_TEXT: plain(str(text), limit=limit)
    page = environment.get_template(template).render(values)
    # A path or text may hold lone surrogates, which no UTF-8 file can.
    return page.encode("utf-8", "replace").decode("utf-8")


def _integrity(script: str) -> str:
    """The hash by which the page's security policy admits its one script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
