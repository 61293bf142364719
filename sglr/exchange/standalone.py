"""A model as one Python file that needs torch alone: the source of its architecture and its options."""

import ast
import inspect
import re
import sys
import textwrap
import types
from pprint import pformat
from typing import Any

import torch
from torch import nn

from sglr.models import REGISTRY, Classifier, Normalize, from_spec

# RobustBench's benchmark() knows these; its names of threat models.
DATASETS = ("cifar10", "cifar100")
THREATS = {"linf": "Linf", "l2": "L2"}

_TEMPLATE = '''"""{title}

build() makes the untrained network, load() the trained one with the weights in {name}.pt next to this file.
It takes images in [0, 1], N x {shape}, and returns logits; it normalises images itself where needed.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

{imports}


{layer}


{body}


{build}


def load() -> nn.Module:
    """The trained network in eval mode, on the CPU."""
    model = build()
    model.load_state_dict(torch.load(Path(__file__).with_name("{name}.pt"), map_location="cpu", weights_only=True))
    return model.eval()
{register}'''

_LAYER = '''def layer(normalization, channels):
    """The first layer; identity where images are used as they are."""
    return nn.Identity() if normalization is None else Normalize(normalization.mean, normalization.std)'''

_REGISTER = '''

def register() -> None:
    """Make this model known to RobustBench: robustbench.load_model("{name}", model_dir=..., dataset="{dataset}",
    threat_model="{threat}") then reads the weights from <model_dir>/{dataset}/{threat}/{name}.pt."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    models = model_dicts[BenchmarkDataset("{dataset}")][ThreatModel("{threat}")]
    # The id of a download, which is not used when the file exists.
    models["{name}"] = {{"model": build, "gdrive_id": "{name}"}}
'''


def source(spec: dict[str, Any], name: str, *, title: str, dataset: str | None, threat: str | None) -> str:
    """The text of ``<name>.py`` for the model that ``spec`` (model.json) describes.

    It holds the source of the architecture's own file, so it fits any model written as one file of plain torch. With a
    ``dataset`` and ``threat`` of RobustBench it can register itself there.
    """
    options_type = REGISTRY.type_of(spec["name"])
    module = sys.modules[options_type.__module__]
    imports, body = _architecture(module)
    options = dict(spec["options"])
    normalization = options.pop("normalization", None)
    constants = {key: getattr(options_type, key) for key in options_type.__class_vars__}
    given = ",\n".join(
        [f"        name={spec['name']!r}"]
        + [f"        {key}={_literal(value)}" for key, value in (options | constants).items()]
        + [f"        normalization={_normalization(normalization)}"]
    )
    shape = tuple(spec["shape"])
    construct = textwrap.dedent(inspect.getsource(options_type.__dict__["build"])).replace(
        "def build(", "def _construct(", 1
    )
    build = (
        construct.rstrip()
        + '\n\n\ndef build() -> nn.Module:\n    """The untrained network."""\n'
        + f"    options = SimpleNamespace(\n{given},\n    )\n"
        + f"    return _construct(options, {spec['num_classes']}, {shape!r})"
    )
    registered = dataset in DATASETS and threat in THREATS.values()
    return _TEMPLATE.format(
        title=title,
        name=name,
        shape=" x ".join(map(str, shape)),
        imports=imports,
        layer=_LAYER,
        body="\n\n\n".join([inspect.getsource(Normalize).rstrip(), inspect.getsource(Classifier).rstrip(), body]),
        build=build,
        register=_REGISTER.format(name=name, dataset=dataset, threat=threat) if registered else "",
    )


def same_logits(text: str, spec: dict[str, Any], state: dict[str, torch.Tensor]) -> bool:
    """Whether the network of a ``source`` text takes these weights and returns the logits of the original."""
    alone = types.ModuleType("sglr standalone")
    alone.__file__ = "standalone.py"
    sys.modules[alone.__name__] = alone  # where dataclasses look
    try:
        exec(compile(text, "standalone.py", "exec"), vars(alone))
        with torch.random.fork_rng(devices=[]):
            copies: list[nn.Module] = [alone.build(), from_spec(spec)]
    finally:
        del sys.modules[alone.__name__]
    x = torch.rand(2, *spec["shape"], generator=torch.Generator().manual_seed(0))
    logits = []
    for copy in copies:
        copy.load_state_dict(state)
        with torch.no_grad():
            logits.append(copy.eval()(x))
    return torch.equal(*logits)


def _architecture(module: Any) -> tuple[str, str]:
    """Import lines, and classes, functions and constants, of a model's file without parts of this project."""
    text = inspect.getsource(module)
    imports, typed, kept = {"import torch", "from torch import Tensor, nn"}, [], []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            typed += node.names
        elif isinstance(node, ast.Import | ast.ImportFrom):
            roots = (
                {alias.name.split(".")[0] for alias in node.names}
                if isinstance(node, ast.Import)
                else {str(node.module).split(".")[0]}
            )
            if not roots & {"sglr", "pydantic"}:
                imports.add(ast.unparse(node))
        elif isinstance(node, ast.ClassDef) and any("register" in ast.unparse(line) for line in node.decorator_list):
            continue
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            decorators = [f"@{ast.unparse(line)}" for line in getattr(node, "decorator_list", ())]
            kept.append("\n".join([*decorators, ast.get_source_segment(text, node) or ""]))
    body = "\n\n\n".join(kept)
    # Those that the options alone use would be of no use.
    used = [alias for alias in typed if re.search(rf"\b{alias.asname or alias.name}\b", body)]
    if used:
        imports.add(ast.unparse(ast.ImportFrom("typing", used, 0)))
    plain = sorted(line for line in imports if line.startswith("import "))
    return "\n".join([*plain, *sorted(imports - set(plain))]), body


def _literal(value: Any) -> str:
    return pformat(tuple(value) if isinstance(value, list) else value, width=100, compact=True)


def _normalization(values: dict[str, Any] | None) -> str:
    if values is None:
        return "None"
    return f"SimpleNamespace(mean={_literal(values['mean'])}, std={_literal(values['std'])})"
