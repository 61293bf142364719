"""One thin command per DVC stage. Nothing imports this package."""

from sglr import processes

processes.let_threads_sleep()
processes.print_anything()
