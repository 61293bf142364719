"""Which items of a pipeline come before which others."""

from collections import defaultdict

from sglr.project.items import Item


def upstream_of(items: list[Item]) -> dict[str, set[str]]:
    """By item, those that make what it depends on: a dep itself, what lies below it, or a folder that it lies in."""
    makers = {out: item.name for item in items for out in item.outs}
    below: defaultdict[str, set[str]] = defaultdict(set)
    for out, name in makers.items():
        for folder in _folders(out):
            below[folder].add(name)

    def of(dep: str) -> set[str]:
        return below.get(dep, set()) | {makers[path] for path in (dep, *_folders(dep)) if path in makers}

    return {item.name: set().union(*map(of, item.deps)) for item in items}


def _folders(path: str) -> list[str]:
    """The folders a path lies in: a and a/b for a/b/c."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def in_order(items: list[Item], upstream: dict[str, set[str]]) -> list[Item]:
    """Every item after those it depends on."""
    ordered: dict[str, Item] = {}
    known = {item.name: item for item in items}

    def visit(item: Item) -> None:
        for name in sorted(upstream[item.name] - ordered.keys() - {item.name}):
            visit(known[name])
        ordered.setdefault(item.name, item)

    for item in items:
        visit(item)
    return list(ordered.values())
