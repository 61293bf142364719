"""Components of one's own, written as people write them: random forwards, tensors put in place of others, wrappers."""

import copy
import dataclasses

import pytest
import torch
from by_hand import C, Net
from tiny_training import assert_resumes, assert_same, equal, net, plan, splits
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel

from sglr.attacks import attack_mode
from sglr.config.reader import validate
from sglr.labels.hard import FixedLabels, HardOptions
from sglr.labels.registry import restore
from sglr.training import Hooks, Plan, Snapshots, TrainingError, fit, step
from sglr.weights import WeightPolicy
from sglr.weights.registry import WeightOptions

AT = {"objective": "at", "labels": "hard", "weights": "none"}


def own(params: dict, method: dict = AT, **parts):
    """The plan of a method with parts that no registry knows."""
    made = plan(params, method)
    return dataclasses.replace(made, method=made.method.model_copy(update=parts))


class Noisy(Net):
    """It draws from torch's global generator whenever it is trained."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.3, self.training))


def noisy() -> Noisy:
    torch.manual_seed(7)
    return Noisy()


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
def test_random_forwards_are_drawn_again(params, tmp_path, monkeypatch, attack_bn):
    params["train"]["attack_bn"] = attack_bn
    monkeypatch.setattr("tiny_training.net", noisy)
    monkeypatch.setattr("tiny_training.Net", Noisy)
    assert_resumes(params, AT, tmp_path)
    chosen, model = plan(params, AT), noisy()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    trained = fit(chosen, model, *splits())
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(trained, fit(chosen, noisy(), *splits()))
    torch.manual_seed(7)
    assert not torch.equal(trained.last["head.weight"], fit(chosen, Net(), *splits()).last["head.weight"])


class Witness(FixedLabels):
    """Keeps what it is shown."""

    def __init__(self, targets, seen):
        super().__init__(targets)
        self.seen = seen

    def update(self, step):
        self.seen.append((step.index, *step.images()))
        return super().update(step)


class WitnessOptions(HardOptions):
    """seen: a list for each seed that asks."""

    seen: dict

    def for_seed(self, seed):
        return self.model_copy(update={"seen": {"images": self.seen.setdefault(seed, [])}})

    def build(self, given, num_classes, epochs):
        return Witness(nn.functional.one_hot(given, num_classes).float(), self.seen["images"])


@pytest.mark.parametrize("objective", ["at", "standard"])
def test_a_policy_sees_the_images_of_its_seed(params, objective):
    """Natural ones as they are trained on, and in their ball the adversarial ones; no others where nothing attacks."""
    kept: dict = {}
    labels = WitnessOptions.model_construct(name="witness", seen=kept)
    method = plan(params, AT | {"objective": objective}).method.model_copy(update={"labels": labels})
    chosen = Plan.training(validate(params), method, seed=4)
    train, validation = splits()
    fit(chosen, net(), train, validation)
    assert list(kept) == [4]
    assert len(kept[4]) == chosen.epochs * -(-len(train) // chosen.batch_size)
    for index, natural, adversarial in kept[4]:
        assert torch.equal(natural, train.x[index])
        distance = (adversarial - natural).abs().max()
        assert distance <= chosen.threat.eps + 1e-6
        assert (distance > 0) == (objective == "at")


class Masked(Net):
    """It has a buffer with infinity in it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


class Noted(Net):
    """Its state dict holds more than tensors, and tensors of other types than weights have."""

    def __init__(self):
        super().__init__()
        for kind in (torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64):
            self.register_buffer(str(kind).partition(".")[2], torch.zeros(2, dtype=kind))
        self.register_buffer("empty", torch.zeros(0))

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        assert state == {"version": 2}


def test_a_network_with_more_than_weights_in_its_state(params):
    assert "empty" in fit(plan(params, AT), Noted(), *splits()).last


class Breaking(WeightPolicy):
    """After the second epoch, values in one place that no loss shows."""

    def __init__(self, place, value):
        self.place, self.value = place, value

    def after_epoch(self, model, epoch, images):
        if epoch == 2:
            model.state_dict()[self.place].view(-1)[0] = self.value


@pytest.mark.parametrize(("place", "value"), [("bn.running_var", float("inf")), ("unused", float("nan"))])
def test_what_no_loss_shows_to_be_broken_is_never_saved(params, place, value):
    class BreakingOptions(WeightOptions):
        """No options."""

        def build(self, model):
            return Breaking(place, value)

    model = Masked()
    model.unused = nn.Parameter(torch.zeros(3))
    chosen = own(params, weights=BreakingOptions(name="breaking"))
    with pytest.raises(TrainingError, match=rf"after epoch 2 {place} of the model is NaN or infinite\. Likely causes"):
        fit(chosen, model, *splits())


class Lookahead(WeightPolicy):
    """Every other step the weights go half way back to where they were."""

    def __init__(self, model: nn.Module) -> None:
        self.steps, self.slow = 0, parameters_to_vector(model.parameters()).detach().clone()

    def after_step(self, model, epoch):
        self.steps += 1
        if self.steps % 2 == 0:
            self.slow = (self.slow + parameters_to_vector(model.parameters()).detach()) / 2
            vector_to_parameters(self.slow.clone(), model.parameters())


class LookaheadOptions(WeightOptions):
    def build(self, model):
        return Lookahead(model)


class Centred(Net):
    """Its running mean is another tensor after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, 1, 4, 4))

    def forward(self, x):
        if self.training:
            self.centre = 0.5 * self.centre + 0.5 * x.detach().mean(0, keepdim=True)
        return super().forward(x - self.centre)


class Hooked(Net):
    """The hook of the model itself is part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5 - 0.2,))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "parts"), [(Net, {"weights": LookaheadOptions(name="own")}), (Centred, {}), (Hooked, {})]
)
def test_training_attacks_what_is_trained(params, monkeypatch, kind, parts, precision):
    """After each attack the network it went through is compared with the model itself."""
    params["train"]["precision"] = precision
    attack, seen = step.adversarial, []

    def watched(plan, learner, x, *others):
        found = attack(plan, learner, x, *others)
        with torch.no_grad(), attack_mode(learner.model, "eval"):
            seen.append(float((learner.networks.attacked(x) - learner.model(x)).abs().max()))
        return found

    monkeypatch.setattr(step, "adversarial", watched)
    torch.manual_seed(7)
    fit(own(params, **parts), kind(), *splits())
    assert len(seen) == 9
    assert max(seen) < (1e-5 if precision == "fp32" else 0.05)


class Wrapped(WeightPolicy):
    """Torch's own exponential average."""

    def __init__(self, model: nn.Module) -> None:
        self.average = AveragedModel(model, avg_fn=lambda kept, new, count: 0.5 * kept + 0.5 * new)

    def after_step(self, model, epoch):
        self.average.update_parameters(model)

    def evaluated(self, model):
        return self.average


class WrappedOptions(WeightOptions):
    def build(self, model):
        return Wrapped(model)


def test_an_average_in_a_wrapper_is_saved_without_it(params):
    params["train"]["keep_epochs"] = [2]
    trained = fit(own(params, weights=WrappedOptions(name="own")), net(), *splits())
    for weights in (trained.last, trained.best, trained.kept[2]):
        net().load_state_dict(weights)


class Table(FixedLabels):
    """Labels that follow the predictions, and are forgotten."""

    def update(self, step):
        self._targets[step.index] = 0.5 * self._targets[step.index] + 0.5 * step.outputs.main.softmax(1)
        return self._targets[step.index]


class Kept(Table):
    def state_dict(self):
        return {"table": self._targets}

    def load_state_dict(self, state):
        restore(self._targets, state["table"])


class Rounded(Kept):
    def state_dict(self):
        return {"table": self._targets.half()}


class Pulled(FixedLabels):
    """Only the penalty follows the predictions."""

    def __init__(self, targets):
        super().__init__(targets)
        self.table = targets.clone()

    def update(self, step):
        self.table[step.index] = step.outputs.main.softmax(1)
        return super().update(step)

    def penalty(self, epoch, index):
        return lambda logits: (logits.softmax(1) - self.table[index]).square().mean(1)


class Weighed(Pulled):
    """Only the weights of examples do, from the second epoch on."""

    penalty = FixedLabels.penalty

    def example_weights(self, epoch, index):
        sure = self.table[index].amax(1)
        return None if epoch < 2 else sure / sure.mean()


class Aimed(Pulled):
    """Only what the attack leads away from does."""

    penalty = FixedLabels.penalty

    def attack_targets(self, epoch, index):
        return self.table[index]


class Restarted(Table):
    """What it restores is not what it was."""

    def state_dict(self):
        return {"table": torch.ones(1)}


class Late(Kept):
    """Of its two memories the second, which counts from the third epoch on, is forgotten."""

    def __init__(self, targets):
        super().__init__(targets)
        self.seen = torch.zeros(len(targets))

    def update(self, step):
        self.seen[step.index] += step.outputs.main.softmax(1).amax(1)
        return super().update(step)

    def example_weights(self, epoch, index):
        return None if epoch < 3 else self.seen[index] / self.seen[index].mean()


class Converted(Kept):
    """Its table is NumPy's from the first step on."""

    def update(self, step):
        self.numpy = self._targets.numpy()
        return super().update(step)

    def state_dict(self):
        return {"table": getattr(self, "numpy", self._targets)}


class Drawing(FixedLabels):
    """Targets that draw from a generator of their own, which is kept."""

    def __init__(self, targets):
        super().__init__(targets)
        self.generator = torch.Generator().manual_seed(3)

    def targets(self, epoch, index):
        noise = torch.rand(len(index), C, generator=self.generator)
        return 0.9 * super().targets(epoch, index) + 0.1 * noise / noise.sum(1, keepdim=True)

    def state_dict(self):
        return {"drawn": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["drawn"])


class Jittered(FixedLabels):
    """Targets that draw from torch's own generator."""

    def targets(self, epoch, index):
        return (super().targets(epoch, index) + 0.1 * torch.rand(len(index), C)).softmax(1)


class Learned(FixedLabels):
    """A network of its own, drawn when it is built."""

    def __init__(self, targets):
        super().__init__(targets)
        self.network = nn.Linear(C, C)

    def targets(self, epoch, index):
        return self.network(super().targets(epoch, index)).detach().softmax(1)

    def state_dict(self):
        return self.network.state_dict()

    def load_state_dict(self, state):
        self.network.load_state_dict(state)


class OfTheBatch(FixedLabels):
    """Weights of the examples of a step, and a penalty prepared before its attack: nobody else can ask for them."""

    def before_attack(self, batch):
        self.natural = batch.natural("eval").softmax(1)

    def penalty(self, epoch, index):
        return lambda logits: (logits.softmax(1) - self.natural).square().sum(1)

    def update(self, step):
        confidence = step.outputs.main.softmax(1).amax(1)
        self.confidence = confidence / confidence.mean()
        return super().update(step)

    def example_weights(self, epoch, index):
        return self.confidence


class Widened(Kept):
    """Its table becomes double."""

    def update(self, step):
        self._targets = self._targets.double()
        self._targets[step.index] = 0.5 * self._targets[step.index] + 0.5 * step.outputs.main.double().softmax(1)
        return self._targets[step.index].float()

    def load_state_dict(self, state):
        self._targets = state["table"]


def labelled(kind, monkeypatch):
    monkeypatch.setattr(HardOptions, "build", lambda self, given, classes, epochs: kind(
        nn.functional.one_hot(given, classes).float()))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "epoch"), [(Table, 1), (Rounded, 1), (Pulled, 1), (Aimed, 1), (Restarted, 1), (Weighed, 2), (Late, 3)]
)
def test_labels_that_would_not_come_back_are_refused_once_they_have_changed(params, monkeypatch, tmp_path, kind, epoch):
    labelled(kind, monkeypatch)
    rows = []
    with pytest.raises(
        TrainingError, match=rf"^the state_dict of the label policy, {kind.__name__}, does not restore its "
    ):
        fit(plan(params, AT), net(), *splits(), hooks=Hooks(Snapshots(tmp_path), on_epoch=rows.append))
    assert len(rows) == epoch - 1
    assert len(fit(plan(params, AT), net(), *splits()).history) == 3  # nothing is resumed without snapshots


@pytest.mark.parametrize("kind", [Kept, Drawing, Jittered, Learned, OfTheBatch, Widened])
def test_labels_that_come_back_resume(params, monkeypatch, tmp_path, kind):
    """And whether they would is found without a change of the training."""
    labelled(kind, monkeypatch)
    assert_resumes(params, AT, tmp_path / "resumed")
    torch.manual_seed(3)
    kept = fit(plan(params, AT), net(), *splits(), hooks=Hooks(Snapshots(tmp_path / "kept")))
    assert_same(kept, fit(plan(params, AT), net(), *splits()))


def test_state_that_cannot_be_kept_later_is_named_by_its_policy(params, monkeypatch, tmp_path):
    labelled(Converted, monkeypatch)
    with pytest.raises(TrainingError, match=r"state_dict of the label policy, Converted: cannot store a ndarray"):
        fit(plan(params, AT), net(), *splits(), hooks=Hooks(Snapshots(tmp_path, 0)))
    assert list(tmp_path.glob("snapshot-*")) == []


class Sampled(Wrapped):
    """Around the average a sample is drawn, as SWAG does."""

    def state_dict(self):
        return dict(self.average.state_dict())

    def load_state_dict(self, state):
        self.average.load_state_dict(state)

    def evaluated(self, model):
        sample = copy.deepcopy(self.average)
        with torch.no_grad():
            for weight in sample.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        return sample


class Watching(Sampled):
    """It hooks the model that it is built for."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = []
        model.register_forward_hook(lambda *of: self.calls.append(1))

    def evaluated(self, model):
        return self.average


@pytest.mark.parametrize("kind", [Sampled, Watching])
def test_looking_at_weights_changes_nothing(params, monkeypatch, tmp_path, kind):
    monkeypatch.setattr(WrappedOptions, "build", lambda self, model: kind(model))
    chosen, model = own(params, weights=WrappedOptions(name="own")), net()
    fit(chosen, model, *splits(), hooks=Hooks(Snapshots(tmp_path)))
    assert len(model._forward_hooks) == (kind is Watching)  # once, when training began
    alone = net()
    fit(chosen, alone, *splits())
    assert equal(dict(model.state_dict()), dict(alone.state_dict()))
    assert not equal(dict(model.state_dict()), dict(net().state_dict()))


def test_averages_that_would_not_come_back_are_refused(params, monkeypatch, tmp_path):
    chosen = own(params, weights=WrappedOptions(name="own"))
    with pytest.raises(TrainingError, match=r"^the state_dict of the weight policy, Wrapped, does not restore its wei"):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path / "forgotten")))
    monkeypatch.setattr(Wrapped, "state_dict", lambda self: dict(self.average.state_dict()), raising=False)
    monkeypatch.setattr(Wrapped, "load_state_dict", lambda self, kept: self.average.load_state_dict(kept))
    kept = fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(tmp_path / "kept")))
    assert_same(kept, fit(chosen, net(), *splits()))


class Attached(FixedLabels):
    """Half the given label, half the prediction; ``detached`` or forgotten."""

    detached = False

    def update(self, step):
        predicted = step.outputs.main.softmax(1)
        return 0.5 * self.targets(step.epoch, step.index) + 0.5 * (predicted.detach() if self.detached else predicted)


class Decaying(FixedLabels):
    """Smoothing that ends with the third epoch: nothing to keep, the epoch says it all."""

    def targets(self, epoch, index):
        hard = super().targets(epoch, index)
        return hard + 0.1 * (3 - epoch) * (1 / hard.shape[1] - hard)


@pytest.mark.parametrize("stop_at", range(1, 10))
def test_targets_that_depend_on_the_epoch_are_those_of_the_last_one(params, monkeypatch, tmp_path, stop_at):
    """Whenever training is resumed, after its last step too."""
    monkeypatch.setattr(HardOptions, "build", lambda self, given, classes, epochs: Decaying(
        nn.functional.one_hot(given, classes).float()))  # fmt: skip
    assert_resumes(params, AT, tmp_path, stop_at)
    trained = fit(plan(params, AT), net(), *splits())
    assert torch.equal(trained.refined, nn.functional.one_hot(splits()[0].given, trained.refined.shape[1]).float())
    assert trained.history[0]["refined/entropy"] > trained.history[1]["refined/entropy"] > 0


def test_targets_carry_no_gradient(params, monkeypatch):
    """As with several processes, which exchange predictions and no graphs."""
    monkeypatch.setattr(HardOptions, "build", lambda self, given, classes, epochs: Attached(
        nn.functional.one_hot(given, classes).float()))  # fmt: skip
    one = fit(plan(params, AT), net(), *splits())
    monkeypatch.setattr(Attached, "detached", True)
    assert_same(one, fit(plan(params, AT), net(), *splits()))


def test_frozen_weights_stay_under_awp(params):
    model = net()
    model.conv.weight.requires_grad_(False)
    before = model.conv.weight.clone()
    trained = fit(plan(params, {**AT, "weights": {"name": "awp", "gamma": 0.1}}), model, *splits())
    assert torch.equal(trained.last["conv.weight"], before)
    assert not torch.equal(trained.last["head.weight"], net().head.weight)


def test_batch_norm_is_not_trained_on_one_image(params):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4))
    with pytest.raises(TrainingError, match=r"of an epoch of 24 examples is one image, too few for batch norm: chan"):
        fit(plan(params, AT, batch_size=23), flat, *splits())
    fit(plan(params, AT, batch_size=23), net(), *splits())  # its maps have more values than one
