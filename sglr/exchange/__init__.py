"""Models from elsewhere, measured here, and models of this project for use elsewhere."""

from sglr.exchange.foreign import Foreign, load_foreign

__all__ = ["Foreign", "load_foreign"]
