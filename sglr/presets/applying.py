"""Writing a preset over the params.yaml that is there, without losing the user's own changes."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from sglr import files
from sglr.config import ConfigError, parse
from sglr.presets import overlays
from sglr.presets.overlays import PresetError
from sglr.presets.rendering import render


@dataclass(frozen=True)
class Change:
    """The effect of applying a preset to a params file."""

    path: Path
    before: str | None
    """The file's text now; None where there is none."""
    after: str

    @classmethod
    def to(cls, name: str, path: Path) -> "Change":
        """The change that makes ``path`` the preset; PresetError if there is none, or the file cannot be read."""
        after = render(name)
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else None
        except (OSError, UnicodeDecodeError) as error:
            raise PresetError(f"cannot read {path}: {error}") from None
        return cls(path, before, after)

    @property
    def is_none(self) -> bool:
        """Whether the file is the preset already."""
        return self.before == self.after

    @property
    def objection(self) -> str | None:
        """Why the user should be asked first; None where there is no need."""
        if self.before is None:
            return f"There is no {self.path} here; is this the project's folder?"
        if _is_preset(self.before):
            return None
        return f"{self.path} differs from every preset: its changes would be lost."

    def diff(self) -> list[str]:
        """The change as lines of a unified diff."""
        before, after = (self.before or "").splitlines(), self.after.splitlines()
        return list(difflib.unified_diff(before, after, str(self.path), f"{self.path} (new)", lineterm=""))

    def write(self) -> None:
        """Make the change. PresetError when the file is marked read-only, FileError when it cannot be written."""
        target = self.path.resolve()
        # The file is replaced, not opened, so the system itself would not refuse.
        if target.exists() and not target.stat().st_mode & 0o222:
            raise PresetError(f"{self.path} is read-only; allow writing first (chmod u+w {self.path}).")
        files.write_text(target, self.after)


def _is_preset(text: str) -> bool:
    """Whether a params.yaml is exactly what some preset renders to, found by the name of its experiment."""
    try:
        name = parse(text)["experiment"]["name"]
        return name in overlays.names() and render(name) == text
    except (ConfigError, PresetError, KeyError, TypeError):
        return False
