"""Numbers of this project against those of other people's packages, on the same small inputs in float64.

    pip install --no-deps foolbox eagerpy torchattacks adversarial-robustness-toolbox torchmetrics lightning-utilities \
        netcal statsmodels patsy pyhessian opacus opt_einsum
    python benchmarks/others.py

None of them is needed for anything else; what is not installed is left out. Exit status 1 where something differs by
more than its tolerance.
"""

import copy
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sglr import models, objectives, weights
from sglr.attacks import fgsm, pgd
from sglr.evaluation.statistics import mcnemar, wilson
from sglr.information import calibration, temperature
from sglr.information.example_gradients import cross_entropy_loss, example_gradients
from sglr.information.hessian import largest_eigenvalue
from sglr.threat import L2, Linf

Check = Callable[[], float]
CHECKS: list[tuple[str, str, str, float, Check]] = []
STEPS = 10


def check(what: str, module: str, package: str, tolerance: float) -> Callable[[Check], Check]:
    """Register a function that returns the largest difference from what a package finds."""

    def register(compare: Check) -> Check:
        CHECKS.append((what, module, package, tolerance, compare))
        return compare

    return register


def network(shape: tuple[int, int, int] = (3, 8, 8)) -> nn.Module:
    """The same untrained network in float64 each time, in eval mode."""
    torch.manual_seed(0)
    options = {"channels": (4, 8), "hidden": 16}
    return models.build("small_cnn", num_classes=10, shape=shape, **options).double().eval()


def batch(n: int = 20) -> tuple[Tensor, Tensor]:
    """The same random images and labels each time."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(10, (n,), generator=generator)


def largest(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors."""
    return float((one - other).abs().max())


@check("FGSM, Linf", "foolbox", "foolbox", 1e-12)
def foolbox_fgsm() -> float:
    import foolbox

    model, (x, y) = network(), batch()
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, found, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=0.05)
    return largest(found, fgsm(model, x, y, threat=Linf(0.05)))


@check("PGD-10, Linf and L2", "foolbox", "foolbox", 1e-12)
def foolbox_pgd() -> float:
    import foolbox

    model, (x, y) = network(), batch()
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    differences = []
    for threat, attack in ((Linf(0.05), foolbox.attacks.LinfPGD), (L2(0.1), foolbox.attacks.L2PGD)):
        step = threat.eps / 4
        _, found, _ = attack(abs_stepsize=step, steps=STEPS, random_start=False)(theirs, x, y, epsilons=threat.eps)
        ours = pgd(model, x, y, threat=threat, step_size=step, steps=STEPS, random_start=False)
        differences.append(largest(found, ours))
    return max(differences)


@check("PGD-10, Linf and L2", "torchattacks", "torchattacks", 1e-7)  # which adds 1e-10 to norms
def torchattacks_pgd() -> float:
    import torchattacks

    model, (x, y) = network(), batch()
    differences = []
    for threat, attack in ((Linf(0.05), torchattacks.PGD), (L2(0.1), torchattacks.PGDL2)):
        step = threat.eps / 4
        found = attack(model, eps=threat.eps, alpha=step, steps=STEPS, random_start=False)(x, y)
        ours = pgd(model, x, y, threat=threat, step_size=step, steps=STEPS, random_start=False)
        differences.append(largest(found, ours))
    return max(differences)


def ours_after_a_step(objective: str, x: Tensor, x_adv: Tensor, y: Tensor, rate: float, awp: float | None) -> nn.Module:
    """The network after one step of SGD on an objective, with or without adversarial weight perturbation."""
    model = network().train()
    loss, targets = objectives.REGISTRY.options(objective).build(), F.one_hot(y, 10).double()

    def mean(net: nn.Module) -> Tensor:
        return loss.total(loss.forward(net, x, x_adv), targets, y)

    policy = weights.REGISTRY.options(**({"name": "none"} if awp is None else {"name": "awp", "gamma": awp}))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with policy.build(model).perturbed(model, 1, lambda net, moved: torch.autograd.grad(mean(net), moved)):
        mean(model).backward()
    optimizer.step()
    return model


def art_step(objective: str, awp: float | None) -> float:
    """Weights and statistics after one step, against those of ART's trainer on the same adversarial examples."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerAWPPyTorch, AdversarialTrainerTRADESPyTorch
    from art.estimators.classification import PyTorchClassifier

    (x, y), rate = batch(), 0.1
    x_adv = pgd(network(), x, y, threat=Linf(0.05), step_size=0.0125, steps=STEPS, random_start=False)

    class Given(ProjectedGradientDescent):
        def generate(self, x: object, y: object = None, **_: object) -> object:
            return x_adv.numpy()

    def classifier() -> PyTorchClassifier:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        return PyTorchClassifier(
            model, nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=10, optimizer=optimizer,
            clip_values=(0, 1), device_type="cpu",
        )  # fmt: skip

    theirs = classifier()
    if awp is None:
        trainer = AdversarialTrainerTRADESPyTorch(theirs, Given(theirs, verbose=False), beta=6.0)
    else:
        mode = {"at": "PGD", "trades": "TRADES"}[objective]
        trainer = AdversarialTrainerAWPPyTorch(
            theirs, classifier(), Given(theirs, verbose=False), mode=mode, gamma=awp, beta=6.0, warmup=0
        )
        trainer._apply_wp = True
    trainer._batch_process(x.numpy(), np.eye(10)[y])
    found = theirs.model.state_dict()
    ours = ours_after_a_step(objective, x, x_adv, y, rate, awp).state_dict()
    return max(largest(found[name].double(), value.double()) for name, value in ours.items())


@check("a step of TRADES", "art", "adversarial-robustness-toolbox", 1e-9)
def art_trades() -> float:
    return art_step("trades", None)


@check("a step of AT-AWP", "art", "adversarial-robustness-toolbox", 1e-9)
def art_awp() -> float:
    return art_step("at", 0.01)


@check("a step of TRADES-AWP", "art", "adversarial-robustness-toolbox", 1e-9)
def art_trades_awp() -> float:
    return art_step("trades", 0.005)


def predictions() -> tuple[Tensor, Tensor]:
    """Logits (3000, 10) that are too sure of themselves, and labels."""
    torch.manual_seed(2)
    logits = 2 * torch.randn(3000, 10, dtype=torch.float64)
    return logits, torch.distributions.Categorical(logits=0.6 * logits).sample()


@check("expected calibration error, 15 bins", "torchmetrics", "torchmetrics", 1e-6)  # which computes in float32
def torchmetrics_ece() -> float:
    from torchmetrics.classification import MulticlassCalibrationError

    logits, y = predictions()
    theirs = MulticlassCalibrationError(10, n_bins=15, norm="l1")
    theirs.update(logits.softmax(1), y)
    return abs(float(theirs.compute()) - calibration.ece(logits.softmax(1).numpy(), y.numpy(), 15))


@check("expected calibration error, 15 bins", "netcal", "netcal", 1e-9)
def netcal_ece() -> float:
    from netcal.metrics import ECE

    logits, y = predictions()
    probs = logits.softmax(1).numpy()
    return abs(float(ECE(15).measure(probs, y.numpy())) - calibration.ece(probs, y.numpy(), 15))


@check("temperature of least cross-entropy", "scipy", "scipy", 1e-6)
def scipy_temperature() -> float:
    from scipy.optimize import minimize_scalar

    logits, y = predictions()
    found = minimize_scalar(lambda t: float(F.cross_entropy(logits / t, y)), bounds=(0.05, 20), options={"xatol": 1e-9})
    return abs(found.x - temperature.fit(logits.log_softmax(1).numpy(), y.numpy()).value)


@check("Wilson's interval", "statsmodels", "statsmodels", 1e-12)
def statsmodels_wilson() -> float:
    from statsmodels.stats.proportion import proportion_confint

    cases = ((0, 10), (3, 10), (10, 10), (512, 1000))
    differences = [np.subtract(wilson(*case), proportion_confint(*case, method="wilson")) for case in cases]
    return float(np.abs(differences).max())


@check("McNemar's exact test", "statsmodels", "statsmodels", 1e-12)
def statsmodels_mcnemar() -> float:
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    generator = np.random.default_rng(0)
    a, b = generator.random(200) < 0.7, generator.random(200) < 0.6
    table = [[int((one & other).sum()) for other in (b, ~b)] for one in (a, ~a)]
    return abs(mcnemar(a, b).p - float(theirs(table, exact=True).pvalue))


@check("largest eigenvalue of the Hessian, relative", "pyhessian", "pyhessian", 1e-4)  # which is power iteration
def pyhessian_eigenvalue() -> float:
    from pyhessian import hessian

    model, (x, y) = network(), batch(200)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(100):  # where eigenvalues of either sign are no longer of one size
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    theirs = hessian(copy.deepcopy(model), nn.CrossEntropyLoss(), data=(x, y), cuda=False)
    expected = float(theirs.eigenvalues(maxIter=2000, tol=1e-9, top_n=1)[0][0])
    found = largest_eigenvalue(
        model, x, F.one_hot(y, 10).double(), iterations=60, chunk=50, generator=torch.Generator().manual_seed(0)
    )
    return abs(found.value - expected) / expected


@check("gradient norms of single examples", "opacus", "opacus", 1e-9)
def opacus_norms() -> float:
    from opacus import GradSampleModule

    options = {"channels": (4, 8), "hidden": 16, "batch_norm": False}  # with which it refuses a network
    torch.manual_seed(0)
    model = models.build("small_cnn", num_classes=10, shape=(3, 8, 8), **options).double().eval()
    x, y = batch()
    ours = example_gradients(model, cross_entropy_loss, (x, F.one_hot(y, 10).double()), chunk=8).norms
    theirs = GradSampleModule(copy.deepcopy(model).train(), loss_reduction="sum")
    F.cross_entropy(theirs(x), y, reduction="sum").backward()
    squares = [weight.grad_sample.flatten(1).square().sum(1) for weight in theirs.parameters()]
    return largest(torch.from_numpy(ours), torch.stack(squares).sum(0).sqrt())


def main() -> int:
    """Print the table; the exit status."""
    torch.set_num_threads(1)
    failed = False
    print("| what | package | largest difference | at most |")
    print("|---|---|---:|---:|")
    for what, module, package, tolerance, compare in CHECKS:
        if importlib.util.find_spec(module) is None:
            print(f"| {what} | {package}, not installed | – | {tolerance:g} |")
            continue
        difference = compare()
        failed |= not difference <= tolerance
        print(f"| {what} | {package} {version(package)} | {difference:.1e} | {tolerance:g} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
