"""The method without a project: training (``sglr.train``) and evaluation (``sglr.robustness``) on a caller's arrays."""
