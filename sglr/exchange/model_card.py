"""The model card and RobustBench's model_info of an exported model, from recorded facts only."""

import json
from collections.abc import Iterator
from typing import Any

from sglr.evaluation.worst import explained, row_title
from sglr.exchange.provenance import Provenance
from sglr.exchange.standalone import DATASETS, THREATS

_ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "preact_resnet18": "PreActResNet-18",
    "wrn": "WideResNet-{depth}-{width}",
}
# With fewer classes the targeted attacks of AutoAttack's standard version have fewer than its 9 targets.
_STANDARD_CLASSES = 10


def info(found: Provenance, spec: dict[str, Any]) -> dict[str, Any]:
    """model_info.json with the fields of RobustBench's ``ModelInfo``; null where the record says nothing.

    ``autoattack_acc`` and ``reported`` are given only when AutoAttack's standard version ran on the whole test split.
    """
    accuracies = (found.results or {}).get(found.checkpoint, {})
    auto = _standard_autoattack(found, spec)
    natural = accuracies.get("natural") if _whole(found, "natural") else None
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": False if found.params else None,
        "number_forward_passes": 1,
        "dataset": dataset(found),
        "venue": "Unpublished",
        "architecture": architecture(spec),
        "eps": _eps(found),
        "clean_acc": _percent(natural),
        "reported": _percent(accuracies.get(auto) if auto else None),
        "autoattack_acc": _percent(accuracies.get(auto) if auto else None),
        "footnote": None if auto else "AutoAttack's standard version was not run on the whole test split.",
    }


def dataset(found: Provenance) -> str | None:
    """The name of the data source; RobustBench's where it has that data set."""
    return None if found.data is None else str(found.data["source"]["name"])


def threat(found: Provenance) -> str | None:
    """RobustBench's name of the threat model evaluated under, or trained for."""
    stated = _threat(found)
    return None if stated is None else THREATS[stated["norm"]]


def architecture(spec: dict[str, Any]) -> str:
    """The field's name of an architecture."""
    return _ARCHITECTURES.get(spec["name"], spec["name"]).format(**spec["options"])


def card(found: Provenance, spec: dict[str, Any], name: str, *, made: dict[str, str], parameters: int) -> str:
    """README.md: use, data, threat model, training, results with intervals, how made, caveats."""
    sections = {
        "Use": _use(found, name),
        "Model": f"{architecture(spec)}, {parameters:,} parameters, {spec['num_classes']} classes, images"
        f" {' x '.join(map(str, spec['shape']))} in [0, 1]; options `{json.dumps(spec['options'])}`. This is the"
        f" **{found.checkpoint}** checkpoint{f' of `{found.item}`' if found.item else ''}.",
        "Data": _data(found),
        "Threat model": _threat_text(found),
        "Training": _training(found),
        "Results": _results(found),
        "How it was made": "\n".join(f"- {key}: {value}" for key, value in made.items()),
        "Caveats": "\n".join(f"- {line}" for line in _caveats(found, spec)),
    }
    return f"# {name}\n\n" + "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items()) + "\n"


def _use(found: Provenance, name: str) -> str:
    text = (
        f"With torch alone:\n\n```python\nfrom {name} import load\n\n"
        "model = load()  # images in [0, 1] -> logits\n```\n\n"
        "With this project: `sglr.load_model(<this folder>)`.\n\n"
    )
    if dataset(found) not in DATASETS or threat(found) is None:
        return text + (
            "RobustBench's `benchmark` downloads CIFAR-10 or CIFAR-100, so it says nothing about a model for other"
            " data; AutoAttack itself takes `load()` as it is."
        )
    return text + (
        f"With RobustBench:\n\n```python\nfrom robustbench import benchmark\nfrom {name} import load\n\n"
        f'benchmark(load(), dataset="{dataset(found)}", threat_model="{threat(found)}", eps={_eps(found)})\n```\n\n'
        f"For its model zoo: `register()` in `{name}.py` is its entry, `model_info.json` describes it, `{name}.pt` has"
        f" its weights (`<model_dir>/{dataset(found)}/{threat(found)}/{name}.pt`)."
    )


def _data(found: Provenance) -> str:
    meta = found.data
    if meta is None:
        why = ": artifacts/data is not, or not known to be, the data that this model was trained on"
        return f"Not on record{why if found.item else ''}."
    if found.source is not None:
        origin, size = json.dumps(meta["source"]), meta["sizes"]["test"]
        return f"Evaluated on (the first of) {size:,} test images of `{origin}`. Training data: not on record."
    lines = [f"Source `{json.dumps(meta['source'])}`."]
    lines.append(", ".join(f"{size:,} {part}" for part, size in meta["sizes"].items()) + " images.")
    noise = meta.get("noise", {"kind": "none"})
    if noise["kind"] != "none":
        lines.append(f"Training labels with {noise['kind']} noise at rate {noise['rate']}: {noise['convention']}.")
    elif noise.get("flipped"):
        lines.append(f"{noise['flipped']:,} training labels are wrong: {noise['convention']}.")
    return " ".join(lines)


def _threat_text(found: Provenance) -> str:
    stated = _threat(found)
    if stated is None:
        return "Not on record."
    return f"{THREATS[stated['norm']]}, eps = {stated['eps_255']:g}/255 on images in [0, 1]."


def _training(found: Provenance) -> str:
    if found.source is not None:
        notes = "".join(f"\n- {note}" for note in found.source["notes"])
        weights = found.source["weights"]
        return f"Trained elsewhere: `{weights['file']}`, SHA-256 `{weights['sha256']}`.{notes}"
    if not found.params:
        return "Not on record."
    lines = [
        f"- `{key}`: `{json.dumps(value)}`" for key, value in found.params.items() if key not in ("model", "threat")
    ]
    epoch = (found.training or {}).get("best_epoch")
    if found.checkpoint == "best" and epoch is not None:
        lines.append(f"- best epoch {epoch} of {(found.training or {})['epochs']}, chosen on the validation split")
    if found.checkpoint.isdigit():
        lines.append(f"- weights as they were after epoch {found.checkpoint}")
    return "\n".join(lines)


def _results(found: Provenance) -> str:
    accuracies = (found.results or {}).get(found.checkpoint)
    if found.results is None or accuracies is None:
        return "Not evaluated, or not on record."
    rows = ["| attack | test examples | accuracy | 95% interval (Wilson) |", "|---|---:|---:|---:|"]
    examples = found.results["n_examples"]
    for attack, accuracy in accuracies.items():
        interval = found.results["interval"][found.checkpoint][attack]
        rows.append(_row(row_title(attack, examples), examples[attack], accuracy, interval))
    sweep = found.results.get("sweep", {})
    if found.checkpoint in sweep:
        rows += ["", "| eps (255ths), PGD | test examples | accuracy | 95% interval (Wilson) |", "|---|---:|---:|---:|"]
        for eps, accuracy in sweep[found.checkpoint].items():
            rows.append(_row(eps, examples["natural"], accuracy, sweep["interval"][found.checkpoint][eps]))
    attacks = (found.suite or {}).get("evaluate", {}).get("attacks")
    if attacks:
        rows += [
            "",
            f"Attacks: `{json.dumps(attacks)}`. Natural: no attack. {explained(examples)}".strip(),
        ]
    return "\n".join(rows)


def _row(name: str, examples: int, accuracy: float, interval: dict[str, float]) -> str:
    return f"| {name} | {examples:,} | {accuracy:.2%} | {interval['low']:.2%} to {interval['high']:.2%} |"


def _caveats(found: Provenance, spec: dict[str, Any]) -> Iterator[str]:
    for flag in (found.results or {}).get("flags", []):
        yield f"Flag of the evaluation: {flag}"
    yield "The intervals count test examples only, not what another training seed would change."
    if _standard_autoattack(found, spec) is None:
        yield "AutoAttack's standard version was not run on the whole test split: robustness may be overstated."
    if found.item and not found.params:
        yield "dvc.lock does not describe these weights: their training is not known, nor that these are their results."
    method: Any = next((value for key, value in (found.params or {}).items() if key.startswith("methods.")), {})
    labels = method.get("labels", {}) if isinstance(method, dict) else {}
    if isinstance(labels, dict) and labels.get("name") == "refinement":
        yield "Self-guided label refinement is a reimplementation after the paper and its authors' code."
        if labels.get("refinement_ratio", 1.0) < 1 or labels.get("ratio_schedule", "constant") != "constant":
            yield "Reconstruction: the published code has no refinement ratio below 1; it follows the paper's formula."


def _threat(found: Provenance) -> dict[str, Any] | None:
    return (found.suite or {}).get("threat") or (found.params or {}).get("threat")


def _standard_autoattack(found: Provenance, spec: dict[str, Any]) -> str | None:
    """The name of an attack of the suite that was AutoAttack's standard version on the whole test split."""
    if spec["num_classes"] < _STANDARD_CLASSES:
        return None
    for name, options in (found.suite or {}).get("evaluate", {}).get("attacks", {}).items():
        stated = {"name": options} if isinstance(options, str) else options
        standard = stated["name"] == "autoattack" and stated.get("version", "standard") == "standard"
        if standard and _whole(found, name):
            return str(name)
    return None


def _whole(found: Provenance, attack: str) -> bool:
    """Whether an attack was run on all test images."""
    examples = (found.results or {}).get("n_examples", {}).get(attack)
    size = (found.data or {}).get("sizes", {}).get("test")
    return examples is not None and examples == size


def _eps(found: Provenance) -> str | None:
    """As RobustBench writes it: 8/255 for Linf, a decimal number for L2."""
    stated = _threat(found)
    if stated is None:
        return None
    return f"{stated['eps_255']:g}/255" if stated["norm"] == "linf" else f"{stated['eps_255'] / 255:.4g}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}"
