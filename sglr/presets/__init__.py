"""Named experiments: small overlays on the shipped params.yaml, and what `sglr preset` does with them."""

from sglr.presets.applying import Change
from sglr.presets.overlays import PresetError, listing, names, read
from sglr.presets.rendering import render

__all__ = ["Change", "PresetError", "listing", "names", "read", "render"]
