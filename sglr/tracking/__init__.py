"""MLflow behind a small protocol.

``run`` tracks one stage item: it journals locally first and sends in the background, so that neither MLflow's import
nor a dead server ever holds up or ends a run. ``sync`` sends what could not be sent.
"""

from sglr.tracking.parents import ParentQuery
from sglr.tracking.registering import register
from sglr.tracking.resend import SyncReport, sync
from sglr.tracking.session import NullTracker, Tracker, run
from sglr.tracking.settings import TrackingError
from sglr.tracking.ui import serve_ui
from sglr.tracking.values import flatten

__all__ = [
    "NullTracker",
    "ParentQuery",
    "SyncReport",
    "Tracker",
    "TrackingError",
    "flatten",
    "register",
    "run",
    "serve_ui",
    "sync",
]
