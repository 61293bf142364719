"""Names that do not exist, and values that do not go together: one clear error with key, value and what is allowed."""

from collections.abc import Callable

import pytest

from sglr.config import ConfigError
from sglr.config.reader import validate

Edit = Callable[[dict], object]
SGLR = ("methods", "sglr", "labels")


def said(params: dict, edit: Edit) -> str:
    edit(params)
    with pytest.raises(ConfigError) as caught:
        validate(params)
    return str(caught.value)


def put(*path: str, **values: object) -> Edit:
    """Set values in the section at ``path``."""

    def edit(params: dict) -> None:
        for name in path:
            params = params[name]
        params.update(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (put("train", epoch=3), "train.epoch: unknown key. Did you mean 'epochs'? Known here: attack, attack_bn,"),
        (put("train", "optimizer", rate=3), "train.optimizer.rate: unknown key. Known here: lr, momentum, nesterov,"),
        (put("train", "schedule", milestone=[3]), "train.schedule.milestone: unknown key. Did you mean 'milestones'?"),
        (put(*SGLR, alfa=0.9), "methods.sglr.labels.alfa: unknown key. Did you mean 'alpha'?"),
        (put("model", chanels=[1, 2]), "model.chanels: unknown key. Did you mean 'channels'?"),
        (put(trian={}), "params.yaml: trian: unknown key. Did you mean 'train'?"),
        (put("model", name="small_cn"), "model: unknown model 'small_cn'. Did you mean 'small_cnn'? Known: "),
        (put("data", source="cifar-10"), "data.source: unknown data source 'cifar-10'. Did you mean 'cifar10'? Known"),
        (put("evaluate", "attacks", cw="cw20"), "evaluate.attacks.cw: unknown attack 'cw20'."),
        (put("methods", "at", objective="att"), "methods.at.objective: unknown objective 'att'. Did you mean 'at'?"),
        (put("methods", "at", labels="soft"), "methods.at.labels: unknown label policy 'soft'."),
        (put("methods", "at", weights="awpp"), "methods.at.weights: unknown weight policy 'awpp'. Did"),
        (put("model", name=3), "model: expected the name of a model, or a mapping with a 'name'; known: "),
        (put("experiment", methods=["at", "sgrl"]), "method 'sgrl' is used but not declared under methods. Did you"),
        (put("experiment", methods=["at", "AT_awp"]), "experiment.methods.1: String should match pattern"),
        (put("experiment", methods=["at", "AT_awp"]), ": in lower case, 'at_awp' (found 'AT_awp')"),
        (lambda params: params["methods"].pop("sglr"), " The shipped params have it: sglr: {objective: at, labels: "),
        (put("model", name="Small_CNN"), "model: unknown model 'Small_CNN'. Did you mean 'small_cnn'? Known: "),
        (put("report", baseline="awp"), "method 'awp' is used but not declared under methods."),
        (
            put("train", schedule={"name": "steps"}),
            "train.schedule: unknown schedule 'steps'. Did you mean 'step'? Known: constant, cosine, linear, step.",
        ),
        (put("train", schedule="cosin"), "train.schedule: unknown schedule 'cosin'. Did you mean 'cosine'? Known: "),
        (put("train", schedule="linear"), "train.schedule.rise_epochs: missing."),
        (put("train", schedule={}), "train.schedule: expected the name of a schedule, or a mapping with a 'name'; kno"),
    ],
)  # fmt: skip
def test_names_that_do_not_exist(params, edit, expected):
    assert expected in said(params, edit)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (put("threat", eps_255=-8), "threat.eps_255: Input should be greater than 0 (found -8)"),
        (put("threat", eps_255=0), "threat.eps_255: Input should be greater than 0 (found 0)"),
        (put("threat", norm="l1"), "threat.norm: Input should be 'linf' or 'l2' (found 'l1')"),
        (put("experiment", seeds=[]), "experiment.seeds: "),
        (put("experiment", methods=[]), "experiment.methods: "),
        (put("experiment", seeds=[0, 1, 0]), "experiment.seeds: duplicate values"),
        (put("experiment", methods=["at", "at"]), "experiment.methods: duplicate values"),
        (put("experiment", seeds=[1e3]), "experiment.seeds.0: Input should be a valid integer (found 1000.0)"),
        (put("experiment", seeds=[-1]), "experiment.seeds.0: "),
        (put("experiment", seeds=[2**31]), "experiment.seeds.0: "),
        (put("experiment", seeds=3), "experiment.seeds: "),
        (put("experiment", methods=["AT"]), "experiment.methods.0: "),
        (put("experiment", name="a/b"), "experiment.name: "),
        (put("train", keep_epochs=[3, 3]), "train.keep_epochs: duplicate values"),
        (put("train", keep_epochs=[0]), "train.keep_epochs.0: "),
        (put("train", keep_epochs=[1, 61, 70]), "train: keep_epochs [61, 70] come after the last epoch, 60"),
        (
            put("train", schedule={"name": "linear", "rise_epochs": 60}),
            "train: schedule.rise_epochs 60 must be less than the 60 epochs",
        ),
        (put("train", "optimizer", momentum=0.0, nesterov=True), "train.optimizer: nesterov: true needs a momentum"),
        (put("train", "optimizer", momentum=1.0), "train.optimizer.momentum: "),
        (put("data", "noise", kind="none"), "data.noise: kind 'none' does not fit rate 0.3"),
        (put("data", "noise", rate=0.0), "data.noise: kind 'symmetric' does not fit rate 0.0"),
        (put("data", "noise", rate=1.1), "data.noise.rate: Input should be less than or equal to 1 (found 1.1)"),
        (put("data", "noise", map={0: 1}), "data.noise: map belongs to kind asymmetric only"),
        (put("data", train_size=99), "train.batch_size 100 is larger than the training set (data.train_size 99)"),
        (put("evaluate", attacks={"natural": "fgsm"}), "evaluate: 'natural' is always measured"),
        (put("evaluate", attacks={"validation": "fgsm"}), "evaluate: 'validation' is what the report calls the"),
        (put("experiment", methods=["at", "epoch"]), "'epoch' is a column of the report's curves and cannot name a"),
        (put("analyze", "sharpness", points=4), "analyze.sharpness.points: 4 is even"),
        (put("analyze", "probe", folds=1), "analyze.probe.folds: Input should be greater than or equal to 2 (found 1)"),
        (put("warmup", objective="adversarial", epochs=60), "warmup.epochs 60 leaves nothing of train.epochs 60"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used(params, edit, expected):
    assert expected in said(params, edit)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (put(*SGLR, alpha=1.0), "methods.sglr.labels: alpha 1 never updates the labels: that is plain 'at'"),
        (put(*SGLR, refinement_ratio=0.0), "methods.sglr.labels: refinement_ratio 0 never"),
        (put(*SGLR, adversarial_weight=1.0, alpha=0.0), "methods.sglr: adversarial_weight 1 with alpha 0 makes"),
        (put("methods", "trades_sglr", "labels", adversarial_weight=0.0, alpha=0.0), "methods.trades_sglr: "),
        (put("methods", "sglr", objective="standard"), "methods.sglr: refinement needs adversarial predictions"),
        (put(*SGLR, start_epoch=61), "methods.sglr.labels.start_epoch 61 comes after the last epoch, train.epochs 60"),
        (put(*SGLR, start_epoch=0), "methods.sglr.labels.start_epoch: Input should be greater than or"),
        (put(*SGLR, alpha=-0.1), "methods.sglr.labels.alpha: "),
        (put(*SGLR, adversarial_weight=1.5), "methods.sglr.labels.adversarial_weight: "),
    ],
)  # fmt: skip
def test_refinement_that_would_not_refine(params, edit, expected):
    assert expected in said(params, edit)


def test_every_problem_is_named_at_once_each_on_its_line(params):
    put("threat", eps_255=-8)(params)
    put("train", epoch=3)(params)
    lines = said(params, put("model", name="resnet")).splitlines()
    assert lines[0] == "params.yaml: "
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["model", "threat.eps_255", "train.epoch"]


def test_an_adversarial_warm_up_is_shared_only_where_it_is_the_same(params):
    put("warmup", objective="adversarial", epochs=5)(params)
    validate(params)
    message = said(params, put("warmup", epochs=6))
    assert "methods.sglr cannot continue the shared adversarial warm-up of 6 epochs: its labels (refinement)" in message
    assert "Set methods.sglr.start: initial, or shorten warmup.epochs" in message
    put("methods", "sglr", start="initial")(params)
    validate(params)
    # A method that is only declared is not asked.
    put("methods", "sglr", start="warmup")(params)
    put("experiment", methods=["at"])(params)
    validate(params)
    assert "methods.trades cannot continue" in said(params, put("experiment", methods=["at", "trades"]))


def test_no_epoch_of_an_adversarial_warm_up_can_be_kept(params):
    put("warmup", objective="adversarial", epochs=3)(params)
    message = said(params, put("train", keep_epochs=[3, 4]))
    assert "train.keep_epochs [3] lie in the shared adversarial warm-up of 3 epochs" in message
    put("train", keep_epochs=[4])(params)
    validate(params)
    # A natural warm-up comes before epoch 1.
    put("train", keep_epochs=[1])(params)
    put("warmup", objective="standard")(params)
    validate(params)
