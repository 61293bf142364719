"""Differences between the setting of a publication, as far as its sources state it, and a study's."""

from typing import Any

from sglr.config import Config

# The redundant parts of a key's name.
_SECTIONS = ("train.optimizer.", "train.", "data.augment.", "model.", "threat.", "method.labels.", "method.")


def differences(config: Config, method: str, stated: dict[str, Any]) -> str:
    """'lr 0.01 (0.1), batch size 1024 (128)': ours and in brackets theirs, of the keys of params.yaml in ``stated``.

    Keys that begin with "method." are those of ``method``; options that its component does not have are passed over,
    since the component's name differs then.
    """
    params = config.model_dump(mode="json")
    if config.train.attack.step_size_255 is None:
        params["train"]["attack"]["step_size_255"] = config.threat.eps_255 / 4
    params["method"] = params["methods"].get(method)
    found = []
    for key, value in stated.items():
        ours, theirs = _find(params, key), _written(key, value)
        if ours not in (None, theirs):
            found.append(f"{_named(key)} {ours} ({theirs})")
    return ", ".join(found)


def beyond_keys(config: Config, method: str) -> list[str]:
    """Differences beyond single keys, from publications that train all images from scratch in single precision."""
    found, warmup = [], config.warmup
    whole, examples = config.data.source.training_examples(), config.data.training_examples
    if examples is not None and examples != whole:
        found.append(f"ours trained on {examples:,} of {whole:,} images")
    if warmup.objective == "standard" and warmup.epochs and config.methods[method].start == "warmup":
        found.append(f"ours begins after natural training (warmup.epochs {warmup.epochs}), theirs from scratch")
    if config.data.augment.more:
        found.append(f"ours also augmented with {' and '.join(options.name for options in config.data.augment.more)}")
    # Float32 and TF32 are one setting: which of them torch takes by default depends on the GPU.
    if config.train.precision == "bf16":
        found.append("ours trained in bf16, theirs in float32")
    return found


def _find(params: dict[str, Any], key: str) -> str | None:
    """The value of a dotted key as it is written, None where there is no such key."""
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return _written(key, value)


def _named(key: str) -> str:
    """'train.attack.step_size_255' -> 'attack step size'."""
    key = key.removesuffix(".name").removesuffix("_255")
    section = next((start for start in _SECTIONS if key.startswith(start)), "")
    return key.removeprefix(section).replace(".", " ").replace("_", " ")


def _written(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):  # of values that no source states
        return " and ".join(value)
    if isinstance(value, list):
        return " and ".join(map(str, value))
    if isinstance(value, str):
        return value
    return f"{value:g}/255" if key.endswith("_255") else f"{value:g}"
