"""A trained model as files that others can use: RobustBench, torch alone, this project."""

import io
import json
import keyword
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

import sglr
from sglr import files, models
from sglr.config.names import SPEC, WEIGHTS
from sglr.exchange import model_card
from sglr.exchange.provenance import gather
from sglr.exchange.standalone import same_logits, source

_TAKEN = ("model", "robustbench", "sglr", "torch")


def export(
    path: str | Path, output: str | Path, *, name: str | None = None, checkpoint: str | None = None
) -> list[Path]:
    """Write a checkpoint into the folder ``output`` and return the files, in the order written.

    ``model.safetensors`` and ``model.json`` (for ``sglr.load_model``), ``<name>.pt`` (its state dict, read with
    ``torch.load(weights_only=True)``), ``<name>.py`` (builds and loads it with torch alone, checked here against the
    original), ``model_info.json`` (RobustBench's), ``README.md`` (model card). ``path`` and ``checkpoint``: see
    ``gather``; ``name``: letters, digits and underscores (None: from folder and checkpoint).

    The same model under the same name may be exported into ``output`` again. FileError when there is no model, the name
    cannot name a Python file, or ``output`` holds another model, this one under another name, or a file by one of these
    names that no export wrote.
    """
    found, output = gather(path, checkpoint), Path(output)
    trained, evaluated = found.folder.resolve().parents[:2]
    # What `sglr evaluate` wrote is one model, whatever its folder in there is called.
    called = f"{found.item or trained.name}_{found.checkpoint}" if found.source is None else evaluated.name
    name = name or re.sub(r"\W", "_", called)
    # torch imports several packages: a file of such a name would be taken for it.
    taken = name in _TAKEN or name in sys.stdlib_module_names or keyword.iskeyword(name) or _installed(name)
    if taken or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", name):
        raise files.FileError(
            f"the name {name!r} cannot name the Python file: use letters, digits and underscores, and a name not"
            " already used by Python or a library."
        )
    if output.resolve() == found.folder.resolve():
        raise files.FileError(f"{output} is the folder of the checkpoint itself: name another one.")
    weights = (found.folder / WEIGHTS).read_bytes()
    _refuse_another(output, name, weights)
    model, spec = models.load_model(found.folder), files.read_json(found.folder / SPEC)
    title = f"{name}: {model_card.architecture(spec)}, exported by sglr {sglr.__version__}."
    text = source(spec, name, title=title, dataset=model_card.dataset(found), threat=model_card.threat(found))
    state = model.state_dict()
    try:
        same = same_logits(text, spec, state)
    except Exception as error:  # whatever a model's own file does when it stands alone
        raise files.FileError(
            f"{name}.py, the source of the model's own file, does not work alone ({type(error).__name__}: {error});"
            " nothing was written."
        ) from error
    if not same:
        raise files.FileError(f"{name}.py would not reproduce the logits of {found.folder}; nothing was written.")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    made = _made(found.folder)
    written = {
        WEIGHTS: weights,
        SPEC: (found.folder / SPEC).read_bytes(),
        f"{name}.pt": _torch_file(state),
        f"{name}.py": text.encode(),
        "model_info.json": (json.dumps(model_card.info(found, spec), indent=2) + "\n").encode(),
        "README.md": model_card.card(found, spec, name, made=made, parameters=parameters).encode(),
    }
    _refuse_others_files(output, name, written)
    for file, payload in written.items():
        files.write_bytes(output / file, payload)
    return [output / file for file in written]


def _installed(name: str) -> bool:
    folders = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    return any(Path(folder, part).exists() for folder in folders for part in (name, f"{name}.py"))


def _refuse_another(output: Path, name: str, weights: bytes) -> None:
    """FileError when a folder holds other weights, or an export under another name: it would then hold both."""
    others = sorted(path.stem for path in output.glob("*.pt") if path.with_suffix(".py").is_file())
    there = output / WEIGHTS
    if there.is_file() and there.read_bytes() != weights:
        raise files.FileError(
            f"{output} holds another model{f' ({others[0]})' if others else ''}: name another folder with --output, or"
            " remove this one."
        )
    if others and others != [name]:
        raise files.FileError(
            f"{output} holds an export by the name {next(other for other in others if other != name)}: name another"
            " folder with --output, or that name with --name."
        )


def _refuse_others_files(output: Path, name: str, written: dict[str, bytes]) -> None:
    """FileError when a file would be lost that neither has the same bytes nor is from an earlier export.

    An interrupted export leaves the files written so far, in order, and ``<name>.py`` says what it is.
    """
    there = [file for file in written if (output / file).exists()]
    changed = [file for file in there if not (output / file).is_file() or (output / file).read_bytes() != written[file]]
    module = output / f"{name}.py"
    exported = module.is_file() and re.match(rf'"""{name}: .*, exported by sglr '.encode(), module.read_bytes())
    earlier = exported and there == list(written)[: len(there)] and SPEC not in changed
    if changed and not earlier:
        raise files.FileError(
            f"{output / changed[0]} would be overwritten, and is not from an earlier export of this model by the name"
            f" {name}: name another folder with --output, or remove that file."
        )


def _torch_file(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _made(folder: Path) -> dict[str, str]:
    """Versions, commit and checksum, for the model card."""
    made = {
        "exported by": f"sglr {sglr.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "weights (model.safetensors) SHA-256": files.sha256(folder / WEIGHTS),
    }
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        made["commit of the project at export"] = commit
    except (OSError, subprocess.SubprocessError):
        made["commit of the project at export"] = "not known (no git repository)"
    return made
