"""Names in files that one stage writes and another reads, where the two share no other room."""

CHECKPOINTS = ("best", "last")
"""The folders of a training that hold a model; ``best`` where there is validation data."""
WEIGHTS, SPEC = "model.safetensors", "model.json"
"""The files of a saved model: its weights with plain names, and how to build it."""
LABELS = "labels.state"
"""In the folder of a training: the label policy's state with each of its models."""
WORST = "worst"
"""Key of the worst case per example over the attacks that were run on as many examples as the suite."""
