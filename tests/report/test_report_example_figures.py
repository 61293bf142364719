"""The figures that look closer, and what they say to those who cannot see them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sglr import files
from sglr.report.example_figures import draw_examples
from sglr.report.study import Study, read

pytestmark = pytest.mark.usefixtures("without_pdf")


@pytest.fixture
def study(make: Callable) -> Study:
    return read(*make())


def names(images) -> list[str]:
    return [image.name for image in images]


def test_classes_and_what_they_are_taken_for(study):
    by_class, *matrices = draw_examples(study)["classes"]
    assert by_class.name == "by-class"
    # Of 200 examples, nines in order: in each nine the first of each class is taken for the next one.
    true = np.arange(200) % 3
    worst = np.arange(200) % 9 < 3
    for number in range(3):
        right = 1 - worst[true == number].mean()
        assert f"{number} {100 * right:.1f}%" in by_class.description
    assert "‘at’, natural: 0 100.0%" in by_class.description
    assert names(matrices) == ["confusion-at", "confusion-sglr"]
    assert "Most often 0 is taken for 1" in matrices[0].description
    assert matrices[0].svg.count("<image") == 1
    # Two thirds are on a dark field: their number must not take the page's paper, which is no colour at all.
    assert "#fdfdfd" in matrices[0].inline()


def test_where_nothing_is_misclassified_nothing_is_mistaken(study):
    for name in study.looked_at:
        if name.startswith("classes/"):
            study.looked_at[name] = study.looked_at["classes/true"]
    _, *matrices = draw_examples(study)["classes"]
    assert all(matrix.description.startswith("No class is taken for another. On the diagonal: ") for matrix in matrices)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_a_class_without_test_images(study):
    study.meta["classes"] = ["0", "1", "2", "3"]
    for image in draw_examples(study)["classes"]:
        assert set(re.findall(r"(\w+) [\w.]+%", image.description)) == {"0", "1", "2"}


def test_a_class_may_have_the_name_of_a_currency(study):
    """Matplotlib would take what is between two of its signs for a formula, and fail where it is none."""
    study.meta["classes"] = ["$\\frac$", "$1$", "10 $"]
    for image in draw_examples(study)["classes"]:
        for name in study.meta["classes"]:
            assert f">{name}</text>" in image.svg


def test_images_are_shown_with_the_class_they_are_taken_for(study):
    (shown,) = draw_examples(study)["examples"]
    # Natural, and worst case and change of two methods, eight columns.
    assert shown.svg.count("<image") == 5 * 8
    assert shown.svg.count("✗") == 2 * 3
    assert "‘at’ misclassifies 3 of 8; ‘sglr’ misclassifies 3 of 8" in shown.description
    assert "at most 25.5/255" in shown.description


def test_the_course_of_refined_labels(study):
    (course,) = draw_examples(study)["labels"]
    assert course.name == "label-course-sglr", "the labels of at do not move"
    # Four noisy examples, three of which are recovered.
    assert "4 examples of seed 0" in course.description
    assert "the given class has 25.0% and the true one 75.0%" in course.description


def test_radii_are_drawn_where_they_were_measured(make, study):
    assert draw_examples(study)["radii"] == []
    config, artifacts = make()
    for item in ("at-0", "at-1", "sglr-0", "sglr-1"):
        path = artifacts / "evaluate" / item / "outcomes.npz"
        arrays = files.read_arrays(path)
        for radius, correct in (("0", 90), ("12.75", 60 if item.endswith("0") else 70), ("25.5", 30)):
            for checkpoint in ("best", "last"):
                arrays[f"sweep/{checkpoint}/{radius}"] = np.arange(100) < correct
        files.write_arrays(path, arrays)
    images = draw_examples(read(config, artifacts))["radii"]
    assert names(images) == ["radii-best", "radii-last"]
    assert "‘sglr’: 90.0% at 0, 65.0% at 12.75, 30.0% at 25.5" in images[0].description


def test_too_many_classes_for_a_matrix(make):
    config, artifacts = make()
    meta = files.read_json(artifacts / "data/meta.json")
    files.write_json(artifacts / "data/meta.json", meta | {"num_classes": 100, "classes": None})
    assert draw_examples(read(config, artifacts))["classes"] == []


def test_they_reach_the_page(written: Path):
    page = (written / "index.html").read_text()
    for title in ("Class by class", "What the attacks do"):
        assert title in page
    assert "Accuracy against the radius" not in page, "no sweep was made"
    assert (written / "figures/worst-case-images.svg").is_file()
