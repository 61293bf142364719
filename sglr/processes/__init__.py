"""Several processes at one work: helpers that one starts, a launcher's; their devices; how each of them is set."""

from sglr.processes.devices import count, current, device, device_of
from sglr.processes.helpers import ProcessError, alongside
from sglr.processes.launcher import Launch, launched
from sglr.processes.settings import cores, keep_freed_memory, let_threads_sleep, print_anything

__all__ = [
    "Launch",
    "ProcessError",
    "alongside",
    "cores",
    "count",
    "current",
    "device",
    "device_of",
    "keep_freed_memory",
    "launched",
    "let_threads_sleep",
    "print_anything",
]
