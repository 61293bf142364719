"""Draw docs/images/pipeline.svg from dvc.yaml: the stages, what depends on what, and how often each runs."""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import networkx as nx
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[1]
OFTEN = {(): "once", ("seed",): "per seed", ("method", "seed"): "per method and seed"}
INK, GROUND, EDGE = "#1a1a1a", "#eaf1f8", "#5b7a99"
# Of a box, in columns and rows.
WIDTH, HEIGHT = 0.84, 0.68


def stages() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def graph() -> nx.DiGraph:
    """Stages, with an edge from each to those that read what it writes, less what follows from other edges."""
    found = nx.DiGraph()
    written = {}
    for name, stage in stages().items():
        found.add_node(name, often=OFTEN[tuple(sorted(stage.get("matrix", ())))])
        outs = [*stage.get("outs", ()), *stage.get("metrics", ())]
        written[name] = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    for name, stage in stages().items():
        for other, paths in written.items():
            if other != name and any(_overlap(path, dep) for path in paths for dep in stage["deps"]):
                found.add_edge(other, name)
    reduced = nx.transitive_reduction(found)
    reduced.add_nodes_from(found.nodes(data=True))
    return reduced


def _overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def draw(path: Path) -> None:
    """Write the image as SVG; the same bytes each time, text as text."""
    found = graph()
    place = {}
    for column, names in enumerate(nx.topological_generations(found)):
        for row, name in enumerate(sorted(names)):
            # A stage alone in its column stands level with what it follows, so that no arrow crosses it.
            before = [place[other][1] for other in found.predecessors(name)]
            level = sum(before) / len(before) if before and len(names) == 1 else 0.0
            place[name] = (column, level + (len(names) - 1) / 2 - row)
    columns = 1 + max(column for column, _ in place.values())
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sglr", "font.family": "sans-serif"}):
        figure = Figure(figsize=(1.35 * columns, 1.6))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(-1, 1))
        axes.axis("off")
        for start, end in sorted(found.edges):
            axes.annotate(
                "", (place[end][0] - WIDTH / 2, place[end][1]), (place[start][0] + WIDTH / 2, place[start][1]),
                arrowprops={"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
        for name, (x, y) in place.items():
            axes.add_patch(Rectangle((x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, facecolor=GROUND, edgecolor=EDGE))
            axes.text(x, y + 0.12, name, ha="center", va="center", color=INK, fontsize=11, fontweight="bold")
            axes.text(x, y - 0.18, found.nodes[name]["often"], ha="center", va="center", color=INK, fontsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "pipeline.svg")
