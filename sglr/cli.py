"""The `sglr` command: its commands by the headings of its help."""

import click

import sglr
from sglr.commands import setting_up, studies, tracking, using
from sglr.terminal import Group, examples


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("sglr preset smoke && dvc repro", "sglr status", "sglr results"),
)
@click.version_option(sglr.__version__)
def main() -> None:
    """Self-guided label refinement for adversarial training.

    The pipeline runs with `dvc repro`, or with `sglr run` several items at a time. Exit status: 0 done, 1 an error or
    a problem found, 2 an invalid command, 130 stopped by Ctrl-C.
    """


main.section("Set up", setting_up.preset, setting_up.check, setting_up.doctor)
main.section("Run and follow a study", studies.run, studies.status, studies.results)
main.section("Use the models", using.predict, using.evaluate, using.export)
main.section("Tracking", tracking.ui, tracking.register, tracking.sync)


if __name__ == "__main__":
    main()
