"""One thin command per DVC stage. Nothing imports this package."""

import os

# Before torch is imported: OpenMP's threads wait for the next operation for a moment and then sleep. Asleep at once,
# two are slower than one on small networks; waiting for long, as is usual, they make a busy machine many times slower.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
