"""Augmentation, attacks, evaluation and per-example gradients, each against a plain form, parity first."""

from functools import partial
from typing import Any

import numpy as np
import torch
from layout import Table, in_turns, require, seconds
from reference_step import Augmented, Reference
from torch import Tensor, nn
from torch.nn import functional as F

from sglr import models, threat
from sglr.attacks import correct_under, pgd
from sglr.attacks.autoattack import AutoAttackOptions, run, runner
from sglr.attacks.losses import cross_entropy
from sglr.attacks.pgd import PgdOptions, ascend
from sglr.attacks.registry import Attack
from sglr.data.batches import draw, transform
from sglr.evaluation.measurement import Measurement
from sglr.information.example_gradients import cross_entropy_loss, example_gradients
from sglr.models.compiling import compiled
from sglr.models.folding import Folded
from sglr.random import torch_stream
from sglr.training.ascent import Ascent
from sglr.training.precision import Precision, computing, exact_ends

STEPS = 20
# A radius under which some of the small images stay correct and some do not.
EPS = {"small_cnn": 16 / 255}


def images(n: int, shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images in [0, 1] (on the 255th grid) and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (n, *shape), generator=generator).float() / 255
    return x.to(device), torch.randint(0, 10, (n,), generator=generator).to(device)


def trained(name: str, shape: tuple[int, int, int], device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """A model in eval mode, with images that it was fitted to for a moment, so that attacks have something to do."""
    model = models.build(name, num_classes=10, shape=shape, generator_seed=0).to(device)
    x, y = images(200, shape, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60 if name == "small_cnn" else 15):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval().requires_grad_(False), x, y


def augmentation(rounds: int, device: torch.device, n: int = 512) -> None:
    """One batch of CIFAR-sized images: all at once against one by one, with the same draws."""
    bytes_ = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    x = (bytes_.float() / 255).to(device)
    draws = draw(n, crop_padding=4, flip=True, generator=torch_stream(0, "benchmark"))

    class Drawn(Augmented):
        """The plain form with given draws."""

        def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
            row, column, mirrored = draws[index].tolist()
            padded = np.pad(self.images[index], ((0, 0), (4, 4), (4, 4)))
            image = padded[:, row : row + 32, column : column + 32]
            image = image[:, :, ::-1] if mirrored else image
            return torch.from_numpy(image.copy()).float() / 255, 0, index

    labels = np.zeros(n, dtype=np.int64)
    drawn, plain = Drawn(bytes_.numpy(), labels, 4, True), Augmented(bytes_.numpy(), labels, 4, True)
    one_by_one = torch.stack([drawn[index][0] for index in range(n)])
    ours = transform(x, draws, crop_padding=4)
    require(torch.equal(ours.cpu(), one_by_one), "augmentation")
    print(f"\nParity: {n} images augmented with the same draws are the same bytes.")

    def once() -> Tensor:
        stream = torch_stream(0, "benchmark", device=device)
        return transform(x, draw(n, crop_padding=4, flip=True, generator=stream), crop_padding=4)

    def host() -> Tensor:
        return torch.stack([plain[index][0] for index in range(n)]).to(device)

    Table(f"Augmentation, {n} images 3x32x32").row(
        "crop and mirror", "one by one on the host", in_turns(host, once, rounds, device), images=n
    )


def attack(rounds: int, device: torch.device, name: str, shape: tuple[int, int, int], batch: int) -> None:
    """PGD-20 on one batch: our pgd, on the network as it is and folded, against a plain eager loop."""
    model, x, y = trained(name, shape, device)
    x, y = x[:batch], y[:batch]
    eps = EPS.get(name, 8 / 255)
    size = eps / 4
    wide = nn.Module.double(models.build(name, num_classes=10, shape=shape, generator_seed=0)).to(device).eval()
    wide.load_state_dict(model.state_dict())
    ball = threat.Linf(eps)
    options = {"threat": ball, "step_size": size, "steps": STEPS}

    def reference(of: nn.Module, start: bool) -> Reference:
        return Reference(of, y, 10, eps=eps, step_size=size, steps=STEPS, random_start=start)

    few, their = x[:16].double(), y[:16]
    wanted = reference(wide, False).attack(few, their)
    for network in (wide, Folded(wide)):
        found = pgd(network, few, their, **options, random_start=False)
        # A gradient that is zero but for rounding may have either sign.
        require(float((found - wanted).abs().gt(1e-9).float().mean()) < 0.001, "attack")
    print("\nParity in float64: at least 99.9% of the pixels of both adversarial images agree to 1e-9.")
    table = Table(f"PGD-{STEPS}, {name}, batch {batch}")
    folded = Folded(model)
    for what, network in (("pgd", model), ("pgd, folded network", folded)):
        ours = partial(pgd, network, x, y, **options)
        times = in_turns(partial(reference(model, True).attack, x, y), ours, rounds, device)
        table.row(what, "plain eager loop", times, images=batch)


def forms(rounds: int, device: torch.device, name: str, shape: tuple[int, int, int], batch: int) -> None:
    """One gradient of the attack's folded network, as it is, channels last and, on a GPU, without cuDNN's trials."""
    model, x, y = trained(name, shape, device)
    x, y = x.repeat(-(-batch // len(x)), 1, 1, 1)[:batch], y.repeat(-(-batch // len(y)))[:batch]
    networks = {
        (half, layout): Folded(model, torch.bfloat16 if half else None).to(memory_format=layout)
        for half in (False, True)
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    for (half, _), network in networks.items():
        if half:
            exact_ends(network)
    table = Table(f"Gradient of an attack step, {name}, batch {batch}")
    gpu = device.type == "cuda"

    def gradient(precision: Precision, last: bool, tried: bool) -> Tensor:
        layout = torch.channels_last if last else torch.contiguous_format
        network = networks[precision == "bf16", layout]
        at = x.detach().to(memory_format=layout).requires_grad_()
        with computing(precision, device):
            torch.backends.cudnn.benchmark = tried
            (found,) = torch.autograd.grad(F.cross_entropy(network(at), y, reduction="sum"), at)
        return found

    plain = gradient("fp32", False, True)
    for precision in ("fp32", "tf32", "bf16") if gpu else ("fp32", "bf16"):
        for last in (False, True):
            for tried in (True, False) if gpu else (True,):
                form = (precision, last, tried)
                found = gradient(*form)
                require(float(F.cosine_similarity(found.flatten(), plain.flatten(), dim=0)) > 0.9, f"gradient {form}")
                times = in_turns(partial(gradient, "fp32", False, True), partial(gradient, *form), rounds, device)
                what = f"{precision}{', channels last' if last else ''}{'' if tried else ', cudnn.benchmark off'}"
                table.row(what, "fp32", times, images=batch)


def compiled_attack(rounds: int, device: torch.device, name: str, shape: tuple[int, int, int], batch: int) -> None:
    """The ten steps of a training's attack in bf16: the folded network compiled, and each step, against neither."""
    model, x, y = trained(name, shape, device)
    x, y = x.repeat(-(-batch // len(x)), 1, 1, 1)[:batch], y.repeat(-(-batch // len(y)))[:batch]
    x = x.contiguous(memory_format=torch.channels_last)
    ball = threat.Linf(EPS.get(name, 8 / 255))
    size, start = ball.eps / 4, ball.random_start(x, torch_stream(0, "benchmark", device=device))
    networks = [Folded(model, torch.bfloat16).to(memory_format=torch.channels_last) for _ in range(3)]
    for network in networks:
        exact_ends(network)
    options: Any = {"batch": batch, "channels_last": True}
    network = compiled(networks[1], device, "always", **options)
    whole = Ascent.of(networks[2], ball, size, device, "always", **options)
    table = Table(f"Ten steps of a training's attack, {name}, batch {batch}, bf16")

    def steps(of: nn.Module) -> Tensor:
        with computing("bf16", device):
            return ascend(of, x, y, threat=ball, step_size=size, steps=10, loss=cross_entropy, start=start)

    def in_one() -> Tensor:
        assert whole is not None
        with computing("bf16", device):
            return whole(start, x, y, cross_entropy, 10)

    forms = {"network compiled": partial(steps, network)} | ({} if whole is None else {"steps compiled": in_one})
    plain = partial(steps, networks[0])
    for what, form in forms.items():
        for _ in range(3):  # compiled, recorded, replayed
            found = form()
        alike = float(F.cosine_similarity((found - x).flatten(), (plain() - x).flatten(), dim=0))
        require(alike > 0.9, f"{what}: cosine {alike:.3f}")
        table.row(what, "eager", in_turns(plain, form, rounds, device), images=batch)


def evaluation(
    rounds: int, device: torch.device, name: str, shape: tuple[int, int, int], n: int, autoattacked: int
) -> None:
    """PGD-20 and AutoAttack on n images as the suite runs them, and what other ways would save."""
    model, x, y = trained(name, shape, device)
    x, y = x.repeat(-(-n // len(x)), 1, 1, 1)[:n], y.repeat(-(-n // len(y)))[:n]
    ball = threat.Linf(EPS.get(name, 8 / 255))
    options = PgdOptions(name="pgd", steps=STEPS)
    plain = Reference(model, y, 10, eps=ball.eps, step_size=ball.eps / 4, steps=STEPS)

    def of_suite(network: nn.Module, chunk: int) -> np.ndarray:
        return Measurement(network, x, y, options, ball, 0, chunk).whole().correct

    def loop() -> np.ndarray:
        found = []
        for part, labels in zip(x.split(100), y.split(100), strict=True):
            with torch.no_grad():
                natural = model(part).argmax(1) == labels
            attacked = plain.attack(part, labels)
            with torch.no_grad():
                found.append(natural & (model(attacked).argmax(1) == labels))
        return torch.cat(found).cpu().numpy()

    robust, other = of_suite(model, 100).mean(), loop().mean()
    require(abs(robust - other) <= 0.05, "evaluation")
    print(
        f"\nParity: {100 * robust:.1f}% stay correct in the suite, {100 * other:.1f}% in the plain loop (other random"
        " starts)."
    )
    table = Table(f"Evaluation by PGD-{STEPS}, {name}, {n} images")
    chunks = [100, 500] if n >= 500 else [100]
    for chunk in chunks:
        times = in_turns(loop, partial(of_suite, model, chunk), rounds, device)
        table.row(f"suite, chunks of {chunk}", "plain loop, batches of 100", times, images=n)
    times = in_turns(partial(of_suite, model, chunks[-1]), partial(of_suite, Folded(model), chunks[-1]), rounds, device)
    table.row("suite, folded network (not built in)", f"suite, chunks of {chunks[-1]}", times, images=n)
    if not autoattacked:
        return
    few, labels = x[:autoattacked], y[:autoattacked]
    whole = AutoAttackOptions(name="autoattack")

    def members() -> np.ndarray:
        return Measurement(model, few, labels, whole, ball, 0, autoattacked).whole().correct

    def package() -> np.ndarray:
        attacks = runner(model, few, threat=ball, seed=0, version="standard")
        x_adv = run(attacks, few, labels, autoattacked, ball)
        with torch.no_grad():
            return (model(x_adv).argmax(1) == labels).cpu().numpy()

    ours, theirs = members(), package()
    require(abs(int(ours.sum()) - int(theirs.sum())) <= 1, "AutoAttack")
    print(f"\nParity: AutoAttack leaves {ours.sum()} and {theirs.sum()} of {autoattacked} correct.")
    table = Table(f"Evaluation by AutoAttack, {name}, {autoattacked} images")
    table.row("suite, member by member", "the package's own run", in_turns(package, members, 1, device),
              images=autoattacked)  # fmt: skip


def analysis(rounds: int, device: torch.device, name: str, shape: tuple[int, int, int], n: int) -> None:
    """Norms of each example's gradient for all weights: vectorised against one backward pass an example."""
    model, x, y = trained(name, shape, device)
    model.requires_grad_(True)
    x, targets = x[:n], F.one_hot(y[:n], 10).float()

    def vectorised() -> np.ndarray:
        return example_gradients(model, cross_entropy_loss, (x, targets), chunk=min(n, 64)).norms

    def loop() -> np.ndarray:
        norms = []
        for index in range(n):
            model.zero_grad()
            loss = -(targets[index] * F.log_softmax(model(x[index : index + 1]), 1)).sum()
            loss.backward()
            norms.append(torch.stack([p.grad.double().norm() for p in model.parameters()]).norm().item())
        return np.array(norms)

    ours, plain = vectorised(), loop()
    worst = float(np.abs(ours - plain).max() / np.abs(plain).max())
    require(worst < 1e-4, "gradients of examples")
    print(f"\nParity in float32: norms differ by at most {worst:.1e} of the largest.")
    table = Table(f"Gradients of {n} examples, {name}")
    table.row("torch.func vmap", "loss.backward() for each", in_turns(loop, vectorised, rounds, device), images=n)


def autoattack_time(device: torch.device, name: str, shape: tuple[int, int, int], n: int, of: int = 10_000) -> None:
    """AutoAttack standard on n images that it never breaks, once, and what that makes of ``of`` images.

    Those that are broken take part in fewer of its members: how many stay robust decides what an evaluation takes.
    """
    model, _, _ = trained(name, shape, device)
    x, _ = images(n, shape, device)
    with torch.no_grad():
        y = model(x).argmax(1)
    options, ball, taken = AutoAttackOptions(name="autoattack"), threat.Linf(1e-6), 0.0
    forwards, backwards = options.passes(10)
    correct = torch.ones(n, dtype=torch.bool, device=device)

    def attacked(attack: Attack) -> None:
        correct.logical_and_(correct_under(model, x, y, attack, seed=0, batch_size=n, threat=ball))

    for member, attack in options.members(ball).items():
        once = seconds(partial(attacked, attack), device)
        taken += once
        print(f"{member}: {once:.3g} s, {int(correct.sum())} of {n} stay correct", flush=True)
    each = taken / n
    print(
        f"\nAutoAttack standard, {name}, float32, one chunk of {n} images that stay correct: {each:.4g} s an image"
        f" ({forwards:.0f} forward and {backwards:.0f} backward passes). {of:,} images of which half stay robust: at"
        f" least {of * each / 2 / 60:.1f} min, without what the others take until they are broken.",
        flush=True,
    )
