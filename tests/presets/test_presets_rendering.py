"""Presets as text: the base, the overlays' values on it, the comments, and what the documentation says of them."""

import re
from pathlib import Path

import pytest

from sglr import models, presets
from sglr.config import parse
from sglr.config.reader import validate
from sglr.presets import overlays

REPOSITORY = Path(__file__).parents[2]
BASE = overlays.text("base")
# Training images of the sources, their shape and their classes.
SOURCES = {
    "cifar10": (50_000, (3, 32, 32), 10),
    "cifar100": (50_000, (3, 32, 32), 100),
    "svhn": (73_257, (3, 32, 32), 10),
    "digits": (997, (1, 8, 8), 10),
}


def leaves(values, path=()):
    """Every value of nested mappings by its path; a component written as a word counts as its name."""
    if isinstance(values, dict):
        return {where: leaf for key, value in values.items() for where, leaf in leaves(value, (*path, key)).items()}
    component = path[0] == "methods" and len(path) == 3 and isinstance(values, str)
    return {(*path, "name") if component and path[-1] != "start" else path: values}


def comments(text):
    """The comment at the end of each line by the path of its key, for block style with two spaces a level."""
    found, path = {}, []
    # A list that is too long for its line goes on in the next.
    for line in re.sub(r",\n +", ", ", text).splitlines():
        if match := re.match(r"^( *)([\w]+):(?:[^#]*[^\s#])?\s*(?:# (.*))?$", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            found[tuple(path)] = match[3]
    return found


def test_the_base_is_the_shipped_params():
    assert (REPOSITORY / "params.yaml").read_text() == BASE
    assert presets.render("digits") == BASE


def test_every_preset_is_small_valid_and_titled(preset):
    name, text = preset
    overlay = overlays.text(name)
    assert len(overlay.splitlines()) <= 25
    assert overlay.startswith("# ")
    config = validate(parse(text))
    # By the experiment's name a params.yaml is recognised as a preset's, and its runs in MLflow.
    assert config.experiment.name == name
    assert presets.read(name).about
    assert presets.read(name).cost


def test_every_value_is_the_last_overlays_or_the_bases(preset):
    name, text = preset
    found, base = leaves(parse(text)), leaves(parse(BASE))
    wanted, replaced, listed = dict(base), set(), None
    for part in presets.read(name).overlays:
        above = {key: value for key, value in parse(overlays.text(part)).items() if key not in overlays.RESERVED}
        listed = above.get("experiment", {}).get("methods", listed)
        for path, value in leaves(above).items():
            if path[-1] == "name" and path[0] != "experiment" and wanted.get(path) != value:
                replaced.add(path[:-1])
            wanted[path] = value
    missing = {path for path in wanted if path not in found}
    for path in missing:
        unlisted = path[0] == "methods" and listed is not None and path[1] not in listed
        assert unlisted or any(path[: len(prefix)] == prefix for prefix in replaced), path
    assert found == {path: value for path, value in wanted.items() if path not in missing}
    if listed is not None:
        assert set(parse(text)["methods"]) == set(listed)


def test_the_sweep_is_around_the_radius_of_the_threat(preset):
    _, text = preset
    config = validate(parse(text))
    if config.evaluate.sweep is not None:
        radii, eps = config.evaluate.sweep.eps_255, config.threat.eps_255
        assert eps in radii
        assert list(radii) == sorted(radii)
        assert min(radii) < eps < max(radii) <= 3 * eps


def test_comments_survive(preset):
    _, text = preset
    base, found = comments(BASE), comments(text)
    assert sum(comment is not None for comment in base.values()) > 60
    for path in base.keys() & found.keys():
        assert found[path] == base[path], path
    assert text.startswith(BASE[: BASE.index("experiment:")])
    assert re.findall(r"\n\n(\w+):", text) == list(parse(BASE))
    assert not re.search(r"[ \t]\n|\n\n\n|\n\n +", text)


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["cifar10-resnet18-sglr", "cifar10-resnet18-sglr-val", "cifar10-resnet18-study"], 11_173_962),
        (["noisy-labels", "ablation"], 11_173_962),
        (["cifar100-resnet18"], 11_173_962 + 90 * 512 + 90),
        (["cifar10-preact18-overfitting", "svhn-preact18", "cifar10-l2"], 11_172_170),
        (["cifar10-wrn34"], 46_160_474),
        # 3x3 convolutions and their batch norm, the hidden layer, the head.
        (["digits"], 9 * 16 + 32 + 9 * 16 * 32 + 64 + (32 * 16 + 1) * 128 + 129 * 10),
        (["smoke"], 9 * 8 + 16 + 9 * 8 * 16 + 32 + (16 * 16 + 1) * 32 + 33 * 10),
    ],
)  # fmt: skip
def test_the_models_are_those_named(names, count):
    import torch

    for name in names:
        config = validate(parse(presets.render(name)))
        _, shape, classes = SOURCES[config.data.source.name]
        with torch.device("meta"):
            model = models.build(config.model, num_classes=classes, shape=shape)
        assert sum(parameter.numel() for parameter in model.parameters()) == count, name


def different(name, other):
    """Paths at which two presets differ, with the first one's values."""
    one, two = (leaves(parse(presets.render(each))) for each in (name, other))
    return {".".join(path): one.get(path) for path in one.keys() | two.keys() if one.get(path) != two.get(path)}


def test_the_authors_setting_is_theirs():
    config = validate(parse(presets.render("cifar10-resnet18-sglr")))
    train, sglr = config.train, config.methods["sglr"].labels
    assert (config.data.source.name, config.model.name, config.model.normalization) == ("cifar10", "resnet18", None)
    assert (config.data.train_size, config.data.validation_size, config.data.noise.rate) == (None, 0, 0)
    assert (config.data.augment.crop_padding, config.data.augment.flip) == (4, True)
    assert (config.threat.norm, config.threat.eps_255) == ("linf", 8)
    assert train.optimizer.model_dump() == {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
    assert (train.epochs, train.batch_size) == (200, 128)
    assert (train.schedule.milestones, train.schedule.factor) == ((100, 150), 0.1)
    assert train.attack.model_dump() == {"steps": 10, "step_size_255": 2, "random_start": True}
    assert train.attack_bn == "eval"
    assert (sglr.start_epoch, sglr.alpha, sglr.adversarial_weight, sglr.refinement_ratio) == (90, 0.9, 0.8, 1)
    assert (sglr.natural_bn, sglr.ratio_schedule) == ("train", "constant")
    assert (config.warmup.objective, config.warmup.epochs) == ("adversarial", 89)
    assert {method.start for method in config.methods.values()} == {"warmup"}


def test_variants_differ_only_in_what_they_are_named_for():
    val, wrn, c100 = "cifar10-resnet18-sglr-val", "cifar10-wrn34", "cifar100-resnet18"
    control = {
        "experiment.methods": ["at", "sglr", "at_natural"], "methods.at_natural.objective.name": "at",
        "methods.at_natural.labels.name": "hard", "methods.at_natural.labels.natural_forward_from": 90,
        "methods.at_natural.weights.name": "none",
    }  # fmt: skip
    published = "cifar10-resnet18-sglr"
    assert different(val, published) == {"experiment.name": val, "data.validation_size": 1000, **control}
    assert different(wrn, val) == {
        "experiment.name": wrn, "model.name": "wrn", "model.depth": 34, "model.width": 10, "evaluate.batch_size": 250,
        "analyze.batch_size": 250, "analyze.gradients.chunk": 4, **dict.fromkeys(control),
        "experiment.methods": ["at", "sglr"],
    }  # fmt: skip
    assert different(c100, val) == {"experiment.name": c100, "data.source.name": "cifar100", "analyze.n_examples": 5000}


def test_the_control_forwards_natural_images_as_refinement_does(preset):
    """From the same epoch on, in the same mode: it shows what refinement does to batch norm without its labels."""
    _, text = preset
    methods = validate(parse(text)).methods
    if "at_natural" in methods and "sglr" in methods:
        assert methods["at_natural"].labels.natural_forward() == methods["sglr"].labels.natural_forward()


def test_rice_et_al_are_followed():
    config = validate(parse(presets.render("cifar10-preact18-overfitting")))
    assert (config.model.name, config.train.attack_bn) == ("preact_resnet18", "train")
    assert config.train.schedule.milestones == (101, 151)
    assert config.model.normalization.mean == (0.4914, 0.4822, 0.4465)
    svhn = validate(parse(presets.render("svhn-preact18")))
    assert (svhn.train.optimizer.lr, svhn.train.attack.step_size_255, svhn.threat.eps_255) == (0.01, 1, 8)
    l2 = validate(parse(presets.render("cifar10-l2")))
    assert (l2.threat.norm, l2.threat.eps_255, l2.train.attack.step_size_255) == ("l2", 128, 15)
    for one in (config, svhn, l2):
        # Robust accuracy is measured with the attack they state, and analysed under the one of training.
        assert one.evaluate.attacks["pgd10"].step_size_255 == one.train.attack.step_size_255
        assert one.analyze.attack == one.train.attack
        assert one.data.validation_size == 1000


def test_estimated_costs_follow_from_the_settings(preset):
    name, text = preset
    config, cost = validate(parse(text)), presets.read(name).cost
    if config.data.source.name == "digits":
        assert "measured" in cost
        return
    images = SOURCES[config.data.source.name][0] - config.data.validation_size
    shared = config.warmup.epochs if config.warmup.objective == "adversarial" else 0
    steps = config.train.attack.steps
    epochs, passes = shared, shared * (steps + 1)
    for method in map(config.methods.get, config.experiment.methods):
        own = config.train.epochs - (shared if method.start == "warmup" else 0)
        more = (method.objective.name != "at") + (method.weights.name == "awp")
        epochs, passes = epochs + own, passes + own * (steps + 1 + more)
    hours = passes * images / 5000 / 3600 * (12 if config.model.name == "wrn" else 1)
    stated = re.match(r"Estimated ([\d.]+) h per seed: ([\d,]+) epochs x ([\d,]+) images x 11 ", cost)
    assert stated
    assert stated[2] == f"{epochs:,}"
    assert stated[3] == f"{images:,}"
    assert float(stated[1]) == pytest.approx(hours, rel=0.03)
    assert "not measured" in cost


def test_the_documentation_has_a_row_for_every_preset(preset):
    name, _ = preset
    about, cost = presets.read(name).about, presets.read(name).cost
    row = f"| `{name}` | {about} | {cost} | "
    page = (REPOSITORY / "docs" / "presets.md").read_text()
    assert row in page, f"docs/presets.md needs this row, and what to expect: {row}"
    assert page.split(row)[1].partition("\n")[0].removesuffix(" |")
    rows = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert rows == sorted(rows)
    assert set(rows) == set(presets.names())
