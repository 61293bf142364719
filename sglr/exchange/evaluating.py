"""The suite on one model from elsewhere; the result has the form of any evaluation."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sglr
from sglr import files, models, processes, threat
from sglr.attacks.requested import require_attackable
from sglr.config import Config, ConfigError, packages
from sglr.config.names import SPEC, WEIGHTS
from sglr.config.sections import ThreatSettings
from sglr.data import Prepared, Split
from sglr.evaluation.auditing import rescore
from sglr.evaluation.on_models import evaluate
from sglr.evaluation.result import write
from sglr.evaluation.suite import KEPT, OnNatural
from sglr.evaluation.worst import explained, row_title
from sglr.exchange.foreign import Foreign, load_foreign
from sglr.models.checkpoint import saved_as, saved_in

FOLDER = Path("artifacts/foreign")
# Options of the command itself, which may be mistaken for the architecture's.
_OWN_OPTIONS = ("key", "normalization", "num_classes")


def default_folder(weights: Path, within: str = "") -> Path:
    """Where the results for a weights file go: artifacts/foreign and the file's name without its ending.

    Files of this project's form are all called alike: for those it is ``<training>-<checkpoint>``, such as at-0-last.
    ``within`` ends the name: the results of another threat model than the params' are others.
    """
    return FOLDER / f"{_name(weights)}{within}"


def _name(weights: Path) -> str:
    folder = weights.parent if weights.name == WEIGHTS else weights
    if not folder.is_dir():
        return weights.stem
    folder = folder.resolve()
    # Names of folders within a training, or within what was evaluated.
    training = next(above.name for above in folder.parents if above.name not in ("model", "checkpoints"))
    return f"{training}-{folder.name}".strip("-")


def load_weights(
    path: str | Path,
    name: str | None,
    data: Prepared,
    *,
    key: str | None = None,
    normalization: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Foreign:
    """The model to evaluate on ``data``: architecture ``name`` with ``options`` and the weights of a file.

    Without a name it must be a model of this project's own form (a folder, or a .safetensors file with its .json).
    Raises FileError or ConfigError as ``load_foreign`` and ``models.load_model`` do.
    """
    path = Path(path)
    if not path.exists():
        raise files.FileError(f"cannot read {path}: No such file or directory")
    if name is not None:
        if path.is_dir():
            raise files.FileError(
                f"{path} is a folder. For a model of this project leave out --model, else name a file of weights."
            )
        _require_known(name, options or {})
        return load_foreign(
            path,
            name,
            num_classes=data.num_classes,
            shape=data.shape,
            key=key,
            normalization=normalization,
            **options or {},
        )
    described = saved_as(path)[1]
    if not described.is_file():
        trained = saved_in(path)
        if trained:
            raise files.FileError(
                f"{path} is the folder of a training: name one of its checkpoints, such as {trained[0]}."
            )
        raise files.FileError(f"{path} does not say which architecture it is for: name it with --model.")
    if key or normalization or options:
        raise ConfigError(f"{described} says how the model is built: leave out --key, --normalization and --option.")
    return Foreign(models.load_model(path), files.read_json(described), ())


def _require_known(name: str, options: dict[str, Any]) -> None:
    """ConfigError for anything that is not an option of the architecture but may be one of ``load_foreign``."""
    known = models.REGISTRY.type_of(name).model_fields.keys() - {"name", "normalization"}
    for option in options:
        if option not in known:
            own = f"; use --{option.replace('_', '-')}" if option in _OWN_OPTIONS else ""
            raise ConfigError(f"model {name!r} has no option {option!r}{own}. It has: {', '.join(sorted(known))}.")


def evaluate_foreign(
    config: Config,
    data: Prepared,
    foreign: Foreign,
    folder: str | Path,
    *,
    weights: Path,
    device: torch.device,
    nproc: int = 1,
    on_natural: OnNatural | None = None,
) -> dict[str, Any]:
    """Attack one model with every attack of ``config.evaluate``, under ``config.threat``; return the metrics.

    The model counts as ``last``. ``folder`` receives metrics.json, outcomes.npz and worst.npz as an evaluate item has
    them, source.json (what was evaluated on what, with checksums) and ``model/last``, the model in this project's form,
    which can be exported like one trained here. The kept worst-case images are scored again in a new process.
    Interrupted and run again, finished chunks are not repeated; results of the same weights are replaced.
    ``on_natural``: see ``evaluate``. Raises FileError for a folder with results of another kind, or with results or a
    model of other weights, and while another process evaluates into it; for an empty test split, images or classes that
    are not the model's; ModelError for logits that are not finite; ConfigError for an attack that does not suit the
    data.
    """
    folder = Path(folder)
    # Before a lock is taken, which would stay beside a pipeline's item and count as a change there.
    _refuse_another_kind(folder)
    with files.lock(_lock_of(folder), holder=f"another `sglr evaluate` into {folder}"):
        network = _network_sha256(foreign.model, foreign.spec)
        sha256 = files.sha256(saved_as(weights)[0])
        _refuse_others_results(folder, weights, sha256, network)
        test = _test_images(config, data, foreign.spec)
        trained = folder / "model"
        models.save(foreign.model, trained / "last", foreign.spec)
        # The form of a training without validation split: no best model.
        (trained / "best").mkdir(exist_ok=True)
        source = {
            "weights": {"file": weights.absolute().name, "sha256": sha256, "network_sha256": network},
            "notes": list(foreign.notes),
            "threat": config.threat.model_dump(mode="json"),
            "evaluate": config.evaluate.model_dump(mode="json"),
            "data": data.meta,
            "versions": {"sglr": sglr.__version__, "torch": torch.__version__},
        }
        pieces = folder / ".unfinished" / _inputs(source, foreign.spec, device)
        result = evaluate(config, data, trained, device=device, pieces=pieces, nproc=nproc, on_natural=on_natural)
        # If what follows is interrupted, new numbers must not appear with the record of earlier ones.
        (folder / "source.json").unlink(missing_ok=True)
        write(result, folder)
        result.flags += _rescored(config, test, folder, device, pieces / "flags.json")
        write(result, folder)
        files.write_json(folder / "source.json", source)
        shutil.rmtree(pieces.parent, ignore_errors=True)
        return result.metrics()


def _test_images(config: Config, data: Prepared, spec: dict[str, Any]) -> Split:
    """The test split; FileError or ConfigError where it is empty, or does not suit the model or the attacks."""
    if tuple(spec["shape"]) != data.shape or spec["num_classes"] != data.num_classes:
        raise files.FileError(
            f"the model is for {spec['num_classes']} classes and images {spec['shape']}, the test set has"
            f" {data.num_classes} classes and images {list(data.shape)} (channels, height, width)."
        )
    require_attackable(config, data.num_classes, data.shape)
    test = data.test()
    if len(test) == 0:
        raise files.FileError("the test split is empty: there is nothing to evaluate on.")
    return test


def _inputs(source: dict[str, Any], spec: dict[str, Any], device: torch.device) -> str:
    """A name for all that the finished pieces of an evaluation depend on."""
    code = files.digest(Path(sglr.__file__).parent)
    attacks = packages.version("pyautoattack")
    return hashlib.sha256(json.dumps([source, spec, code, attacks, str(device)]).encode()).hexdigest()[:32]


def _rescored(config: Config, test: Split, folder: Path, device: torch.device, to: Path) -> list[str]:
    """Flags of the kept worst-case images, scored again in a new process, which writes into ``to``."""
    ball, threads = threat.of(config.threat), torch.get_num_threads()
    last, first = folder / "model" / "last", test.first(KEPT)
    with processes.alongside(1, rescore, folder / "worst.npz", last, first, ball, device, threads, to):
        pass
    return [f"last: {flag}" for flag in files.read_json(to)]


def table(metrics: dict[str, Any], perturbations: ThreatSettings) -> str:
    """The threat model, accuracies of ``last`` with their 95% Wilson intervals, the curve over eps, then the flags."""
    examples = metrics["n_examples"]
    rows = [
        (row_title(attack, examples), examples[attack], accuracy, metrics["interval"]["last"][attack])
        for attack, accuracy in metrics["last"].items()
    ]
    sweep = metrics.get("sweep")
    if sweep:
        rows += [
            (f"eps {eps}/255", examples["natural"], accuracy, sweep["interval"]["last"][eps])
            for eps, accuracy in sweep["last"].items()
        ]
    width = max(len("attack"), *(len(row[0]) for row in rows))
    lines = [f"perturbations within {perturbations.eps_255:g}/255 in {perturbations.norm.capitalize()}"]
    lines += [f"{'attack':<{width}}  {'examples':>8}  {'accuracy':>8}  95% interval"]
    for name, n, accuracy, interval in rows:
        lines.append(f"{name:<{width}}  {n:>8}  {accuracy:>8.2%}  {interval['low']:.2%} to {interval['high']:.2%}")
    flags, worst = metrics["flags"], explained(examples)
    return "\n".join(
        [*lines, *([worst] if worst else []), *(f"FLAG {flag}" for flag in flags), *([] if flags else ["no flags"])]
    )


def _lock_of(folder: Path) -> Path:
    """The lock held while a process evaluates into ``folder``: next to it, since all files inside are results."""
    folder = folder.resolve()
    return folder.parent / f".{folder.name}.lock"


def _refuse_another_kind(folder: Path) -> None:
    """FileError when ``folder`` holds results that `sglr evaluate` did not write, such as a pipeline item's."""
    ours = (folder / "source.json").is_file() or (folder / ".unfinished").is_dir()
    if not ours and (folder / "metrics.json").exists():
        raise files.FileError(f"{folder} holds results of another kind: name another folder with --output.")


def _refuse_others_results(folder: Path, weights: Path, sha256: str, network: str) -> None:
    """FileError when ``folder`` holds the results or the model of other weights."""
    path = folder / "source.json"
    if not path.is_file():
        if (folder / ".unfinished").is_dir():
            return
        last, best = (folder / "model" / checkpoint for checkpoint in ("last", "best"))
        if best.is_dir() and any(best.iterdir()):
            raise files.FileError(f"{best} is a model of something else: name another folder with --output.")
        if (last / SPEC).is_file():
            held = _network_sha256(models.load_model(last), files.read_json(last / SPEC))
            if held != network:
                raise files.FileError(f"{last} is another model: name another folder with --output.")
        return
    try:
        there = files.read_json(path)["weights"]
        name, found, measured = str(there["file"]), str(there["sha256"]), str(there.get("network_sha256", network))
    except (LookupError, TypeError):
        raise files.FileError(
            f"{path} is not what `sglr evaluate` writes; name another folder with --output."
        ) from None
    if found == sha256 and measured != network:
        raise files.FileError(
            f"{folder} holds the results of {name} read in another way (--key, --model, --normalization or --option):"
            " name another folder with --output, or remove this one."
        )
    if found != sha256:
        raise files.FileError(
            f"{folder} holds the results of other weights ({name}, SHA-256 {found[:12]}...; {weights} has"
            f" {sha256[:12]}...): name another folder with --output, or remove this one."
        )


def _network_sha256(model: nn.Module, spec: dict[str, Any]) -> str:
    """A digest of the network as it was read: of its construction and every tensor."""
    total = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
