"""What stands beside the numbers: assumptions, and why a quantity is absent."""

SOURCE = (
    "Reconstruction: the paper's estimators are not published. Entropies, likelihoods and information are in nats;"
    " intervals are 95% percentile bootstraps over the examples of this run."
)
ATTACK = (
    "Adversarial inputs: PGD with analyze.attack, model in eval mode, away from the true label of test pictures and"
    " from the given label of training pictures."
)
GRADIENTS = (
    "Norm of the cross-entropy's gradient for weights and bias of the last layer, ||s - t|| sqrt(||h||^2 + 1), batch"
    " norm in eval mode, pictures not augmented. For objective at and adversarial inputs that is the training loss;"
    " otherwise it is cross-entropy on this input alone."
)
GRADIENT_TARGETS = {
    "best": "Targets t are the given labels: the refined ones of the best epoch are not kept.",
    "last": "Targets t are those of labels.npz, after the last epoch.",
}
PROBE = (
    "Lower bound H(Y) - CE of a cross-fitted logistic probe on penultimate features of test pictures with true labels;"
    " at most labels/entropy, never clipped. Its interval takes the fitted probes as given. Adversarial features hold"
    " what the attack, which knows the label, put there."
)
MEMORIZATION = (
    "Accuracies of noisy and clean training examples are those of history.csv at the checkpoint's epoch: natural in"
    " eval mode, pgd over the attacked batches as they were trained on."
)
NO_BEST = "There is no best checkpoint: without a validation split none is chosen."
INFINITE_NLL = (
    "Left out: some targets give the true class probability 0, as wrong hard labels do, so that the mean is infinite."
)


def information_bias(name: str, bias: float) -> str:
    """On the plug-in mutual information of labels, whose first-order bias is ``bias`` nats."""
    labels = "the most probable class of the targets" if name == "targets" else "the given label"
    return f"Plug-in mutual information of {labels} with the true label; too high by up to about {bias:.2g} nats."


def no_noise(kind: str) -> str:
    """Why what concerns noisy examples is absent."""
    return (
        f"No given training label differs from the true one (noise kind {kind}): accuracies, gradients and recovery of"
        " noisy examples do not exist and are left out."
    )


def no_probe(reason: str) -> str:
    """Why the probe bound is absent."""
    return f"{PROBE} Left out here: {reason}."
