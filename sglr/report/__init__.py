"""The results of a study: ``write(config, artifacts, folder)`` makes the page, tables, figures and results.json."""

from sglr.report.writer import write

__all__ = ["write"]
