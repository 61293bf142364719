"""index.html, from its sections; the templates decide how they look."""

from pathlib import Path

from sglr.report.sections import Plots, Tables, sections
from sglr.report.table import Row

TEMPLATES = Path(__file__).parent / "templates"


def page(results: Row, tables: Tables, plots: Plots) -> str:
    """The complete page as one HTML text that loads nothing; everything that came from outside is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [section for section in sections(results, tables, plots) if section]
    return environment.get_template("index.html").render(results=results, sections=shown)
