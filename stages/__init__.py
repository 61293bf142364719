"""One thin command per DVC stage. Nothing imports this package."""

import os

# Before torch is imported: on a busy machine spinning OpenMP threads make small networks many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
