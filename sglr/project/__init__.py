"""A project as ``dvc repro`` sees it: its items, and which of them are done, running, or were stopped."""
