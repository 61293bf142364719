"""Notes on the numbers: assumptions, and why a quantity is absent."""

SOURCE = (
    "Reconstruction: the paper's estimators are not published. Entropies, likelihoods and information are in nats;"
    " intervals are of 95% over the examples of this run: Wilson's of shares, percentile bootstraps of other means,"
    " basic ones, which take off the bias, of calibration errors and plug-in information."
)
ATTACK = (
    "Adversarial inputs: PGD with analyze.attack, model in eval mode, away from the true label of test images and"
    " from the given label of training images."
)
GRADIENTS = (
    "Norm of the cross-entropy's gradient for weights and bias of the last layer, ||s - t|| sqrt(||h||^2 + 1), batch"
    " norm in eval mode, images not augmented. Targets t are those after the checkpoint's own epoch. For objective at"
    " and adversarial inputs that is the training loss, unless the label policy adds a penalty (ensembling); otherwise"
    " it is cross-entropy on this input alone."
)
PROBE = (
    "Lower bound H(Y) - CE of a cross-fitted logistic probe on penultimate features of test images with true labels;"
    " at most labels/entropy, never clipped. Its interval takes the fitted probes as given. Adversarial features hold"
    " what the attack, which knows the label, put there."
)
FULL_GRADIENTS = (
    "Norm over all weights, per example by torch.func, batch norm in eval mode, at the weights as they were saved: with"
    " awp not at the perturbed ones. natural and adversarial: cross-entropy of that input; objective: all terms of the"
    " method's loss, penalties and weights of examples among them, at the analysis' own adversarial images. Targets"
    " are those after the checkpoint's own epoch."
)
INDEX = (
    "Pairwise bounds on I(index; T) of test images' penultimate features with Gaussian noise, the middle of"
    " analyze.index_noise times their spread (all levels in index_information.csv); at most log N. It depends on the"
    " noise, and describes N samples, not the layer."
)
SATURATED = (
    "The upper bound is within 1% of log N for some checkpoint: it only says that the samples can be told apart."
    " A larger noise, or more examples, would say more."
)
NO_INDEX = "Left out: pairwise bounds need two test images."
_WEIGHTS = (
    "n times the mean squared projection of per-example gradients (natural images, given labels) on the way from the"
    " weights training began with: a proxy, not a bound. 0 at the start. A few examples make up most of it, so"
    " that intervals cover less than 95%: 93% for 'at' on digits, with 200 examples."
)
WARMED_UP = f"{_WEIGHTS} Those weights had seen the same data in warm-up."
NOT_WARMED_UP = (
    f"{_WEIGHTS} Those are the seed's initial weights, which saw no data; the precision is that of the trained weights."
)
NO_START = "Left out: the weights of the warm-up were not given, so there is no way to measure along."
LABEL_INFORMATION = (
    "Lower bound H - CE of I(w; y | x) / n with the entropy of the injected noise and the natural cross-entropy of"
    " given labels over all training examples; raw, never clipped. It holds in expectation over draws of the noise, so"
    " look at several seeds."
)
GAP = "Accuracy on training images and their given labels minus accuracy on test images, same attack."
SHARPNESS = (
    "Largest eigenvalue of the Hessian of the mean cross-entropy with the training targets, by Lanczos' method"
    " (Hessian-vector products); its interval takes the eigenvector as given. Depends on the scale of the weights, so"
    " compare networks with care."
)
NO_TEMPERATURE = "Left out: temperature scaling is fitted on the validation split, and there is none."
TEMPERATURE_AT_BOUND = (
    "The temperature ended at an end of its range: validation predictions are all right, or no better than chance."
)
MEMORIZATION = (
    "Accuracies of noisy and clean training examples are those of history.csv at the checkpoint's epoch: natural in"
    " eval mode, pgd over the attacked batches as they were trained on: of the weights of the training steps, which"
    " with ema, swa and awp are not those of the checkpoint."
)
NO_BEST = "There is no best checkpoint: without a validation split none is chosen."
INFINITE_NLL = (
    "Left out: some labels give the true class probability 0, as wrong hard labels do, so that the mean is infinite."
)
INFINITE_CURVATURE = "Left out for some checkpoint: the second derivatives of its loss are beyond what float32 holds."


def information_bias(name: str, bias: float) -> str:
    """On the plug-in mutual information of labels, whose first-order bias is ``bias`` nats."""
    labels = "the most probable class of the refined label" if name == "refined" else "the given label"
    return (
        f"Plug-in mutual information of {labels} with the true label; too high by about {bias:.2g} nats (to first"
        " order; at a few hundred examples up to a fifth more). Its interval takes the bias off and can lie below it."
    )


CHANNEL = (
    "What the injected noise leaves of the true labels: their mutual information with the given labels, by the noise's"
    " probabilities and the frequencies of the true labels. given/information estimates it."
)
NOT_DRAWN = (
    "The wrong labels come with the data: the entropy of the given labels is not known, and the bound on the label"
    " information in the weights, which needs it, is left out."
)


def no_noise(kind: str) -> str:
    """Why what concerns noisy examples is absent."""
    return (
        f"No given training label differs from the true one (noise kind {kind}): accuracies, gradients and recovery of"
        " noisy examples do not exist and are left out."
    )


def not_converged(iterations: int) -> str:
    """On an eigenvalue whose iteration was stopped."""
    return f"Stopped after {iterations} steps for some checkpoint: its eigenvalue may be too small."


def no_probe(reason: str) -> str:
    """Why the probe bound is absent."""
    return f"{PROBE} Left out here: {reason}."


def no_second_derivative(reason: str) -> str:
    """Why the curvature is absent."""
    first = reason.strip().splitlines()[0] if reason.strip() else "it cannot be differentiated twice"
    return f"The curvature is left out: a layer of this network has no second derivative in torch ({first[:200]})."
