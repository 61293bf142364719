"""``python -m sglr``: the command line."""

from sglr.cli import main

if __name__ == "__main__":
    main(prog_name="sglr")
