"""Writing the report: read, work everything out, then write, so that bad input leaves the old report intact."""

from pathlib import Path

from sglr import files
from sglr.config import Config
from sglr.report.curves import quantities, wide
from sglr.report.figures import draw
from sglr.report.headline import headline_attacks
from sglr.report.markdown import markdown, summary
from sglr.report.page import page
from sglr.report.results import collect, headline_numbers
from sglr.report.study import read
from sglr.report.tables import tables


def write(config: Config, artifacts: Path, folder: Path) -> str:
    """Make the report of the methods and seeds listed in ``config.experiment``; return its headline and main tables.

    Reads ``artifacts/{data,train,evaluate,audit,analyze}``; writes into ``folder``: ``index.html`` (loads nothing),
    ``results.md``, ``results.json`` (keys: see ``sglr.report.results``), ``metrics.json`` (its main numbers, which
    DVC shows and compares), ``curves/*.csv`` (one history column each: mean over seeds per epoch and method), figures
    as ``figures/*.svg`` and ``*.pdf``, tables as ``tables/*.csv`` and ``*.tex``. Equal inputs and versions give equal
    bytes. Figures and tables of an earlier report that are not among the new ones are removed.

    Raises FileError that names the missing, damaged or unfitting file.
    """
    study = read(config, artifacts)
    results = collect(study)
    shown = tables(results)
    plots = draw(study, results)
    drawn = [plot for group in plots.values() for plot in group]
    index = page(results, shown, plots)

    for plot in drawn:
        files.write_text(folder / "figures" / f"{plot.name}.svg", plot.svg)
        files.write_bytes(folder / "figures" / f"{plot.name}.pdf", plot.pdf)
    for table in shown.values():
        files.write_text(folder / "tables" / f"{table.name}.csv", table.csv())
        files.write_text(folder / "tables" / f"{table.name}.tex", table.latex())
    for kind in ("svg", "pdf"):
        _keep_only(folder / "figures", {f"{plot.name}.{kind}" for plot in drawn}, f"*.{kind}")
    for kind in ("csv", "tex"):
        _keep_only(folder / "tables", {f"{name}.{kind}" for name in shown}, f"*.{kind}")
    names = {f"{quantity.replace('/', '-')}.csv": quantity for quantity in quantities(study)}
    for name, quantity in names.items():
        files.write_rows(folder / "curves" / name, wide(study, quantity))
    _keep_only(folder / "curves", set(names), "*.csv")
    files.write_json(folder / "results.json", results)
    files.write_json(folder / "metrics.json", headline_numbers(results, headline_attacks(study)))
    files.write_text(folder / "results.md", markdown(results, shown))
    files.write_text(folder / "index.html", index)
    return summary(results, shown)


def _keep_only(folder: Path, names: set[str], pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.name not in names:
            path.unlink()
