"""A stage of one's own, as docs/how-to/add-a-stage.md has it, in a finished study."""

import json
import re

import pytest
from study_project import REPOSITORY, Project

PAGE = (REPOSITORY / "docs/how-to/add-a-stage.md").read_text()


@pytest.mark.slow
def test_a_stage_of_ones_own_is_one_of_the_items(finished: Project) -> None:
    (script,) = re.findall(r"```python file=margins.py\n(.*?)```", PAGE, re.S)
    (entry,) = re.findall(r"```text\nstages:\n(.*?)```", PAGE, re.S)
    (finished.path / "margins.py").write_text(script)
    pipeline = finished.path / "dvc.yaml"
    pipeline.write_text(re.sub(r"(?m)^stages:\n", lambda found: found[0] + entry, pipeline.read_text(), count=1))
    assert not re.search(r"margins +done", finished.call("sglr", "status").output)
    assert finished.repro("margins").ran == ["margins"]
    found = json.loads((finished.path / "margins.json").read_text())
    assert {method: list(seeds) for method, seeds in found.items()} == {"at": ["0"], "sglr": ["0"]}
    for seeds in found.values():
        assert seeds["0"]["natural"] > seeds["0"]["attacked"]
    assert re.search(r"margins +done", finished.call("sglr", "status").output)
    finished.change(lambda params: params["threat"].update(eps_255=20))
    assert re.search(r"margins +(out of date|waiting)", finished.call("sglr", "status").output)
