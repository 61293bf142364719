"""Where images come from: the options every data source shares, and the registry of sources."""

from pathlib import Path
from typing import ClassVar

from sglr.config import Options, Registry
from sglr.data.arrays import Arrays

REGISTRY = Registry("data source")


class SourceOptions(Options):
    """Options of every source."""

    asymmetric_maps: ClassVar[dict[str, dict[int, int]]] = {}
    packages: ClassVar[tuple[str, ...]] = ()
    """What must be installed to read it, beyond what training needs; names as pip takes them."""

    def read(self, root: Path | None) -> Arrays:
        """The source's images and true labels.

        ``root`` is the folder that SGLR_DATA_ROOT names, None when it is not set. Raises FileError, naming file and
        array, when the data is unavailable or unusable.
        """
        raise NotImplementedError

    def look(self, root: Path | None) -> tuple[bool, str]:
        """Whether the data is there, and where it is or would come from, without reading it.

        ``root`` and FileError, when it is nowhere and nothing would bring it, as in ``read``.
        """
        return True, self.name

    def training_examples(self) -> int | None:
        """How many training examples the source has, before any are cut; None where only reading it tells."""
        return None

    def test_examples(self) -> int | None:
        """How many test examples the source has; None where only reading it tells."""
        return None

    def classes_and_shape(self) -> tuple[int, tuple[int, int, int]] | None:
        """How many classes and which images (C, H, W) the source has; None where only reading it tells."""
        return None

    def asymmetric_map(self) -> dict[int, int] | None:
        """Which class asymmetric label noise turns into which, where the literature has a custom for this source."""
        return self.asymmetric_maps.get(self.name)
