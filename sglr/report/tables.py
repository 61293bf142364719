"""The tables, made from results.json's structure: text for people in ``rows``, exact values in ``records``."""

from sglr.report import accuracy_tables, analysis_tables, training_tables
from sglr.report.table import Row, Table

_MAKERS = (
    accuracy_tables.accuracy,
    accuracy_tables.differences,
    accuracy_tables.published,
    accuracy_tables.paired,
    accuracy_tables.transfer,
    accuracy_tables.seeds,
    training_tables.labels,
    training_tables.memorisation,
    analysis_tables.calibration,
    analysis_tables.analysis,
    analysis_tables.analysis_seeds,
    training_tables.cost,
)


def tables(results: Row) -> dict[str, Table]:
    """All tables that have something to show, by name."""
    made = (make(results) for make in _MAKERS)
    return {table.name: table for table in made if table.rows}
