"""Run a stage up to its one library call, which prints the moment and the CPU time so far and
ends the process: `startup.py STAGE [ARGUMENT...]`.

Called by commands.py in a copy of the project, never in the project: the run is left as a killed one would be.
"""

import importlib
import os
import runpy
import sys
import time

# The module and the function that a stage's work begins with.
WORK = {
    "check": ("sglr.files", "write_text"),
    "prepare": ("sglr.data.prepared", "prepare"),
    "warmup": ("sglr.training.items", "warm_up"),
    "train": ("sglr.training.items", "train"),
    "evaluate": ("sglr.evaluation.on_models", "evaluate"),
    "audit": ("sglr.evaluation.auditing", "audit"),
    "analyze": ("sglr.information.analyze", "analyze"),
    "report": ("sglr.report.writer", "write"),
}


def main() -> None:
    stage = sys.argv[1]
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    importlib.import_module("stages")  # what comes before torch is imported
    module = importlib.import_module(WORK[stage][0])
    name = WORK[stage][1]

    def work(*arguments: object, **keywords: object) -> None:
        print([time.time(), time.process_time()], flush=True)
        os._exit(0)

    found = getattr(module, name)
    for loaded in list(sys.modules.values()):
        # The function under every name it was imported by.
        if getattr(loaded, "__name__", "").startswith("sglr") and vars(loaded).get(name) is found:
            setattr(loaded, name, work)
    sys.argv = [f"stages.{stage}", *sys.argv[2:]]
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
