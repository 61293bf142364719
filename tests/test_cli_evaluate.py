"""`sglr evaluate` as a user meets it: a model from elsewhere through the suite, and what is refused."""

import contextlib
import hashlib
import inspect
import json
import re

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from sglr import data, evaluation, files, models, processes
from sglr.cli import main
from sglr.config.reader import validate
from sglr.config.sections import ThreatSettings
from sglr.exchange import evaluating, load_foreign
from sglr.exchange.provenance import gather

KIND = {"num_classes": 10, "shape": (1, 8, 8), "channels": [4, 8], "hidden": 16}
OPTIONS = ("--model", "small_cnn", "--option", "channels=[4, 8]", "--option", "hidden=16")


def call(*arguments: object):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _in_this_process(request, monkeypatch):
    """Scoring again in a new process takes seconds to start; one test does it."""
    if "another_process" in request.node.name:
        return

    @contextlib.contextmanager
    def alongside(helpers, work, *arguments):
        work(1, *arguments)
        yield

    monkeypatch.setattr(processes, "alongside", alongside)


@pytest.fixture
def project(params, tmp_path, monkeypatch):
    """A project's folder with params.yaml, prepared digits, and weights from elsewhere in author.tar."""
    monkeypatch.chdir(tmp_path)
    params["data"] |= {"source": {"name": "digits", "test_size": 100}, "train_size": 60, "validation_size": 20}
    params["train"]["batch_size"] = 60
    params["evaluate"] |= {
        "sanity": None,
        "sweep": None,
        "n_examples": 40,
        "batch_size": 16,
        "attacks": {"fgsm": "fgsm", "pgd3": {"name": "pgd", "steps": 3, "n_examples": 24}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    config = validate(params)
    data.prepare(config.data, tmp_path / "artifacts" / "data")
    state = models.build("small_cnn", **KIND, generator_seed=1).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "author.tar")
    return tmp_path


def images(project):
    test = data.open_folder(project / "artifacts" / "data").test()
    return test.images().numpy(), test.true.numpy()


def test_the_suite_runs_and_files_are_those_of_any_evaluation(project):
    result = call("--weights", "author.tar", *OPTIONS)
    assert result.exit_code == 0, result.output
    folder = project / "artifacts" / "foreign" / "author"
    metrics, outcomes = files.read_json(folder / "metrics.json"), files.read_arrays(folder / "outcomes.npz")
    assert metrics["n_examples"]["natural"] == 40
    assert metrics["n_examples"]["pgd3"] == 24
    for attack in ("natural", "fgsm", "pgd3"):
        outcome = outcomes[f"last/{attack}"]
        low, high = evaluation.wilson(int(outcome.sum()), len(outcome))
        assert metrics["last"][attack] == outcome.mean()
        assert metrics["interval"]["last"][attack] == {"low": low, "high": high}
        row = f"{len(outcome)}    {outcome.mean():.2%}  {low:.2%} to {high:.2%}"
        assert " ".join(row.split()) in " ".join(result.output.split())
    assert all(f"FLAG {flag}" in result.output for flag in metrics["flags"])
    assert not (folder / ".unfinished").exists()


def test_outcomes_are_those_of_the_same_weights_trained_here(project):
    """The evaluate stage's own function on a training folder with the same weights."""
    assert call("--weights", "author.tar", *OPTIONS, "--output", "out").exit_code == 0
    config = validate(yaml.safe_load((project / "params.yaml").read_text()))
    model = models.build("small_cnn", **KIND, generator_seed=1)
    models.save(model, project / "train" / "last", models.spec("small_cnn", **KIND))
    (project / "train" / "best").mkdir()
    expected = evaluation.evaluate(
        config, data.open_folder("artifacts/data"), project / "train", device=torch.device("cpu")
    )
    found = files.read_arrays(project / "out" / "outcomes.npz")
    for attack, outcome in expected.correct["last"].items():
        np.testing.assert_array_equal(found[f"last/{attack}"], outcome)


def test_what_was_evaluated_is_on_record(project):
    said = call("--weights", "author.tar", *OPTIONS, "--output", "out", "--n-examples", 8)
    assert said.exit_code == 0
    source = json.loads((project / "out" / "source.json").read_text())
    digest = hashlib.sha256((project / "author.tar").read_bytes()).hexdigest()
    assert source["weights"].items() > {"file": "author.tar", "sha256": digest}.items()
    assert source["evaluate"]["n_examples"] == 8
    assert source["threat"] == {"norm": "linf", "eps_255": 25.5}
    assert "prefix module. taken off every key" in source["notes"]
    assert all(f"weights: {note}\n" in said.output for note in source["notes"])
    assert str(project) not in (project / "out" / "source.json").read_text()
    assert files.read_json(project / "out" / "metrics.json")["n_examples"]["natural"] == 8


def test_the_threat_model_of_the_command_line(project):
    """As if the params said it: outcomes and record are the same."""
    arguments = ("--weights", "author.tar", *OPTIONS)
    said = call(*arguments, "--norm", "l2", "--eps", 300, "--output", "here")
    assert said.exit_code == 0, said.output
    assert call(*arguments, "--eps", 7.905, "--output", "less").exit_code == 0
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["threat"] = {"norm": "l2", "eps_255": 300.0}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert call(*arguments, "--output", "there").exit_code == 0
    here, there, less = (files.read_json(project / name / "source.json") for name in ("here", "there", "less"))
    assert here == there
    assert less["threat"] == {"norm": "linf", "eps_255": 7.905}
    one, other = (files.read_arrays(project / name / "outcomes.npz") for name in ("here", "there"))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    changes = {}
    for name in ("here", "less"):
        worst = files.read_arrays(project / name / "worst.npz")["last/images"]
        changes[name] = 255 * (worst - images(project)[0][: len(worst)]).reshape(len(worst), -1)
    # Longer than any change within 25.5/255 in each of 64 pixels.
    assert 8 * 25.5 < np.linalg.norm(changes["here"], axis=1).max() < 300.1
    assert np.abs(changes["less"]).max() == pytest.approx(7.905, rel=1e-3)


def test_a_radius_that_is_probably_not_in_255ths_is_warned_of(project):
    result = call("--weights", "author.tar", *OPTIONS, "--n-examples", 4, "--eps", 0.031)
    assert result.exit_code == 0, result.output
    assert "warning: threat.eps_255 0.031 is 0.031/255, less than one step of a byte" in result.output
    assert "warning" not in call("--weights", "author.tar", *OPTIONS, "--n-examples", 4, "--eps", 8).output


def test_a_model_of_this_project_needs_no_name(project):
    assert call("--weights", "author.tar", *OPTIONS, "--output", "out").exit_code == 0
    result = call("--weights", "out/model/last", "--output", "again")
    assert result.exit_code == 0, result.output
    one, other = (files.read_arrays(project / name / "outcomes.npz") for name in ("out", "again"))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    with contextlib.chdir(project / "out/model/last"):
        here = ("--params", project / "params.yaml", "--data", project / "artifacts/data")
        assert call("--weights", ".", "--output", project / "there", *here).exit_code == 0
    assert files.read_json(project / "there/source.json")["weights"]["file"] == "last"
    result = call("--weights", "out/model/last", "--option", "hidden=16")
    assert "leave out --key, --normalization and --option" in result.output


def test_results_of_two_models_go_to_two_places(project):
    for seed, name in enumerate(("at-0", "sglr-0")):
        model = models.build("small_cnn", **KIND, generator_seed=seed)
        models.save(model, project / "artifacts/train" / name / "last", models.spec("small_cnn", **KIND))
    results = {}
    for weights, name in (
        ("artifacts/train/at-0/last", "at-0-last"),
        ("artifacts/train/sglr-0/last/model.safetensors", "sglr-0-last"),
        ("artifacts/foreign/at-0-last/model/last", "at-0-last-last"),
    ):
        result = call("--weights", weights, "--n-examples", 4)
        assert (result.exit_code, f"written to artifacts/foreign/{name}" in result.output) == (0, True), result.output
        results[name] = files.read_json(project / "artifacts/foreign" / name / "source.json")["weights"]["sha256"]
    assert results["at-0-last"] == results["at-0-last-last"] != results["sglr-0-last"]


def test_a_folder_with_results_of_other_weights_is_refused(project):
    """Whatever the files are called; the same weights may come again, under other settings too."""
    arguments = ("--weights", "author.tar", *OPTIONS, "--n-examples", 4)
    assert call(*arguments).exit_code == 0
    before = files.digest(project / "artifacts/foreign")
    (project / "author.tar").rename(project / "first.tar")
    weights(project, **{"head.bias": torch.ones(10)})
    (project / "changed.pt").rename(project / "author.tar")
    result = call(*arguments)
    assert result.exit_code == 1
    assert "artifacts/foreign/author holds the results of other weights (author.tar, SHA-256 " in result.output
    assert "--output" in result.output
    assert files.digest(project / "artifacts/foreign") == before
    result = call("--weights", "first.tar", *OPTIONS, "--n-examples", 6, "--output", "artifacts/foreign/author")
    assert result.exit_code == 0, result.output
    assert files.read_json(project / "artifacts/foreign/author/metrics.json")["n_examples"]["natural"] == 6


def test_a_folder_with_results_of_another_kind_is_refused(project):
    files.write_json(project / "artifacts/evaluate/at-0/metrics.json", {"last": {}})
    result = call("--weights", "author.tar", *OPTIONS, "--n-examples", 4, "--output", "artifacts/evaluate/at-0")
    assert result.exit_code == 1
    assert "artifacts/evaluate/at-0 holds results of another kind: name another folder with --output" in result.output
    assert files.read_json(project / "artifacts/evaluate/at-0/metrics.json") == {"last": {}}
    # Not even a lock: audit depends on the folder above.
    assert [path.name for path in (project / "artifacts/evaluate").iterdir()] == ["at-0"]
    model = models.build("small_cnn", **KIND, generator_seed=2)
    models.save(model, project / "out/model/last", models.spec("small_cnn", **KIND))
    before = files.digest(project / "out")
    result = call("--weights", "author.tar", *OPTIONS, "--n-examples", 4, "--output", "out")
    assert (result.exit_code, "out/model/last is another model: name another folder" in result.output) == (1, True)
    assert files.digest(project / "out") == before
    models.save(model, project / "both/model/best", models.spec("small_cnn", **KIND))
    result = call("--weights", "author.tar", *OPTIONS, "--n-examples", 4, "--output", "both")
    assert (result.exit_code, "both/model/best is a model of something else" in result.output) == (1, True)
    result = call("--weights", "author.tar", *OPTIONS, "--nproc", "two")
    assert "--nproc='two' is not a number of processes" in result.output


def test_another_network_of_the_same_file_does_not_replace_the_first(project):
    model = dict(models.build("small_cnn", **KIND, generator_seed=0).state_dict())
    torch.save({"model": model, "ema": model | {"head.bias": torch.ones(10)}}, "two.pt")
    one = ("--weights", "two.pt", *OPTIONS, "--n-examples", 4)
    assert call(*one, "--key", "model").exit_code == 0
    assert "read under the key 'model'" in files.read_json(project / "artifacts/foreign/two/source.json")["notes"]
    for other in (("--key", "ema"), ("--key", "model", "--normalization", "0.5/0.25")):
        result = call(*one, *other)
        assert result.exit_code == 1
        assert "artifacts/foreign/two holds the results of two.pt read in another way" in result.output
    assert call(*one, "--key", "ema", "--output", "ema").exit_code == 0


def test_a_folder_is_told_from_a_file_of_weights(project):
    for name in ("best", "last"):
        models.save(
            models.build("small_cnn", **KIND), project / "artifacts/train/at-0" / name, models.spec("small_cnn", **KIND)
        )
    result = call("--weights", "artifacts/train/at-0")
    assert (
        "is the folder of a training: name one of its checkpoints, such as artifacts/train/at-0/best" in result.output
    )
    result = call("--weights", "artifacts/train/at-0/last", "--model", "small_cnn")
    assert "artifacts/train/at-0/last is a folder. For a model of this project leave out --model" in result.output


def test_images_from_an_npz_give_what_prepared_ones_give(project):
    x, y = images(project)
    np.savez(project / "own.npz", x_test=x + 5e-7, y_test=y)
    assert call("--weights", "author.tar", *OPTIONS, "--output", "out").exit_code == 0
    result = call("--weights", "author.tar", *OPTIONS, "--npz", "own.npz", "--output", "npz")
    assert result.exit_code == 0, result.output
    one, other = (files.read_arrays(project / name / "outcomes.npz") for name in ("out", "npz"))
    np.testing.assert_array_equal(one["last/natural"], other["last/natural"])
    np.savez(project / "last.npz", x_test=(x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1), y_test=y)
    assert call("--weights", "author.tar", *OPTIONS, "--npz", "last.npz", "--n-examples", 4).exit_code == 0


def test_natural_accuracy_is_shown_before_the_first_attack(project, monkeypatch):
    attacks = validate(yaml.safe_load((project / "params.yaml").read_text())).evaluate.attacks
    with monkeypatch.context() as patch:
        patch.setattr(type(attacks["fgsm"]), "build", lambda self, threat: lambda *_, **__: 1 / 0)
        ended = call("--weights", "author.tar", *OPTIONS)
    assert isinstance(ended.exception, ZeroDivisionError)
    result = call("--weights", "author.tar", *OPTIONS)
    natural = files.read_json(project / "artifacts/foreign/author/metrics.json")["last"]["natural"]
    said = f"natural accuracy {natural:.2%} (40 test examples); the attacks follow\n"
    assert ended.stderr == said
    assert (result.stderr.count(said), said in result.stdout) == (1, False)


def test_the_worst_case_is_named_by_what_it_covers(project):
    """An attack on fewer examples is no part of it, and may break more."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["evaluate"]["attacks"]["pgd2"] = {"name": "pgd", "steps": 2}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    result = call("--weights", "author.tar", *OPTIONS)
    metrics = files.read_json(project / "artifacts/foreign/author/metrics.json")
    outcomes = files.read_arrays(project / "artifacts/foreign/author/outcomes.npz")
    assert metrics["last"]["worst"] == (outcomes["last/fgsm"] & outcomes["last/pgd2"]).mean()
    assert f"worst of fgsm, pgd2 40 {metrics['last']['worst']:.2%}" in " ".join(result.stdout.split())
    assert "Worst: correct under every one of fgsm, pgd2; without pgd3, run on fewer examples." in result.stdout


def test_results_of_several_threat_models_lie_beside_each_other(project):
    """And in another norm no radii are tried that are those of the params' norm."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["evaluate"]["sweep"] = {"eps_255": [12.75, 25.5], "steps": 2}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    arguments = ("--weights", "author.tar", *OPTIONS, "--n-examples", 6)
    said = [call(*arguments, *more) for more in ((), ("--eps", 8), ("--norm", "l2", "--eps", 127.5))]
    folders = ("author", "author-linf-8", "author-l2-127.5")
    for one, folder in zip(said, folders, strict=True):
        assert f"written to artifacts/foreign/{folder}" in one.output, one.output
    assert "within 127.5/255 in L2" in said[2].output
    found = [files.read_json(project / "artifacts/foreign" / folder / "metrics.json") for folder in folders]
    assert [sorted(one.get("sweep", {}).get("last", {})) for one in found] == [
        ["0", "12.75", "25.5"],
        ["0", "12.75", "25.5"],
        [],
    ]
    assert "warning: evaluate.sweep.eps_255 12.75, 25.5 does not include the radius" in said[1].output
    assert "evaluate.sweep" not in said[2].output


def test_a_row_that_covers_many_attacks_stays_short_and_they_are_listed_below_the_table():
    names = [f"attack{n}" for n in range(5)]
    counts = {"natural": 40, **dict.fromkeys(names, 40), "worst": 40}
    interval = {"low": 0.4, "high": 0.6}
    metrics = {
        "last": dict.fromkeys(counts, 0.5), "n_examples": counts, "flags": [],
        "interval": {"last": dict.fromkeys(counts, interval)},
    }  # fmt: skip
    shown = evaluating.table(metrics, ThreatSettings(norm="l2", eps_255=127.5))
    assert shown.startswith("perturbations within 127.5/255 in L2\nattack ")
    assert "worst of 5 attacks        40    50.00%  40.00% to 60.00%\n" in shown
    assert f"Worst: correct under every one of {', '.join(names)}.\nno flags" in shown


def test_normalization_is_the_first_layer(project):
    result = call("--weights", "author.tar", *OPTIONS, "--normalization", "0.5/0.25", "--output", "out")
    assert result.exit_code == 0, result.output
    normalization = files.read_json(project / "out" / "model" / "last" / "model.json")["options"]["normalization"]
    assert normalization == {"mean": [0.5], "std": [0.25]}


def test_images_come_from_one_place(project):
    for folder in ("artifacts/data", "elsewhere"):
        result = call("--weights", "author.tar", *OPTIONS, "--npz", "own.npz", "--data", folder)
        assert (result.exit_code, "--data and --npz: " in result.output) == (2, True), result.output
    assert not (project / "artifacts/foreign").exists()


def test_data_that_were_not_prepared_are_said_to_be_missing(project):
    result = call("--weights", "author.tar", *OPTIONS, "--data", "elsewhere")
    said = "there are no prepared data in elsewhere: `dvc repro prepare` makes them, --npz names a file of your own."
    assert (result.exit_code, said in result.output) == (1, True), result.output


def npz(project, **change):
    x, y = images(project)
    np.savez(project / "own.npz", **({"x_test": x, "y_test": y} | change))
    return ("--weights", "author.tar", *OPTIONS, "--npz", "own.npz")


def without_labels(project):
    np.savez(project / "own.npz", x_test=np.zeros((4, 1, 8, 8)))
    return ("--weights", "author.tar", *OPTIONS, "--npz", "own.npz")


def weights(project, **change):
    state = models.build("small_cnn", **KIND, generator_seed=1).state_dict()
    torch.save(state | change, project / "changed.pt")
    return ("--weights", "changed.pt", *OPTIONS)


def single_logit(project):
    """A binary network for a sigmoid, and two classes."""
    x, y = images(project)
    np.savez(project / "own.npz", x_test=x, y_test=y % 2)
    change = {"head.weight": torch.ones(1, 16), "head.bias": torch.ones(1)}
    return (*weights(project, **change), "--npz", "own.npz")


REFUSED = {
    "empty test set": (lambda p: npz(p, x_test=np.ones((0, 1, 8, 8)), y_test=np.ones(0, int)), r"x_test is empty"),
    "beyond 1": (lambda p: npz(p, x_test=np.full((100, 1, 8, 8), 1.01)), r"values from 1.01 to 1.01; .* \[0, 1\]"),
    "NaN image": (lambda p: npz(p, x_test=np.full((100, 1, 8, 8), np.nan)), "x_test holds NaN"),
    "too few labels": (lambda p: npz(p, y_test=np.zeros(7, int)), "x_test has 100 images, y_test 7 labels"),
    "classes of the data": (lambda p: npz(p, y_test=np.arange(100)), r"\[10, 16\], must be \[100, 16\]"),
    "labels from 1": (lambda p: npz(p, y_test=images(p)[1] + 1), "Labels count from 0: the largest in own.npz is 10"),
    "label too large": (lambda p: (*npz(p), "--num-classes", "5"), "holds label 9, but there are 5 classes: 0 to 4"),
    "no y_test": (lambda p: without_labels(p), r"missing y_test \(it holds x_test\)"),
    "other class count": (lambda p: ("--weights", "author.tar", *OPTIONS, "--num-classes", "7"), "has 10 classes"),
    "NaN weights": (lambda p: weights(p, **{"head.bias": torch.full((10,), torch.nan)}), r"not finite: head\.bias"),
    "infinite logits": (lambda p: weights(p, **{"head.weight": torch.full((10, 16), 1e30),
                                                "hidden.weight": torch.full((16, 128), 1e30)}), "infinite logits"),
    "a single logit": (lambda p: single_logit(p), r"Its last layer gives a single logit: save it with a row of zeros"),
    "keys": (lambda p: weights(p, more=torch.ones(1)), "unexpected: more"),
    "no architecture": (lambda p: ("--weights", "author.tar"), "name it with --model"),
    "unknown option": (lambda p: ("--weights", "author.tar", *OPTIONS, "--option", "deep=3"), "has no option 'deep'"),
    "not an option": (lambda p: ("--weights", "author.tar", *OPTIONS, "--option", "deep"), "is not KEY=VALUE"),
    "classes": (lambda p: ("--weights", "author.tar", *OPTIONS, "--option", "num_classes=10"),
                "no option 'num_classes'; use --num-classes. It has: batch_norm, channels, hidden"),
    "normalization": (lambda p: ("--weights", "author.tar", *OPTIONS, "--normalization", "1"), "is not MEAN/STD"),
    "deviation of 0": (lambda p: ("--weights", "author.tar", *OPTIONS, "--normalization", "0.5/0"),
                       r"^Error: model 'small_cnn': normalization\.std\.0: Input should be greater than 0\n$"),
    "no file": (lambda p: ("--weights", "absent.pt", *OPTIONS), "absent.pt: No such file"),
    "no file and no name": (lambda p: ("--weights", "absent.pt"), "absent.pt: No such file"),
    "no params": (lambda p: ("--weights", "author.tar", *OPTIONS, "--params", "no.yaml"), "cannot read no.yaml"),
    "norm alone": (lambda p: ("--weights", "author.tar", *OPTIONS, "--norm", "l2"),
                   r"--norm l2 without --eps: the radius of the params, 25\.5/255, is one in linf\."),
    "no radius": (lambda p: ("--weights", "author.tar", *OPTIONS, "--eps", "0"), "--eps: Input should be greater than"),
    "radius NaN": (lambda p: ("--weights", "author.tar", *OPTIONS, "--eps", "nan"), "--eps: Input should be a finite"),
    "device": (lambda p: ("--weights", "author.tar", *OPTIONS, "--device", "tpu"), "--device='tpu' is not a device"),
    "no such GPU": (lambda p: ("--weights", "author.tar", *OPTIONS, "--device", "cuda:9"), "but torch sees"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_ends_in_one_message_and_no_results(case, project):
    arguments, message = REFUSED[case]
    result = call(*arguments(project), "--output", "out")
    assert result.exit_code == 1, result.output
    assert re.search(message, result.output), result.output
    assert result.output.count("Error") == 1
    assert not (project / "out" / "metrics.json").exists()


def test_what_else_says_how_a_model_is_built_is_no_option(project):
    taken = {*inspect.signature(models.build).parameters, *inspect.signature(load_foreign).parameters} - {"options"}
    assert {"shape", "path", "key"} < taken
    for name in (*taken, "data"):
        result = call("--weights", "author.tar", *OPTIONS, "--option", f"{name}=1")
        assert (result.exit_code, f"'small_cnn' has no option {name!r}" in result.output) == (1, True), result.output


def test_an_interrupted_evaluation_continues(project, monkeypatch):
    """The last attack dies; run again, the finished ones are not repeated and the outcomes are the same."""
    assert call("--weights", "author.tar", *OPTIONS, "--output", "whole").exit_code == 0
    attacks = validate(yaml.safe_load((project / "params.yaml").read_text())).evaluate.attacks
    with monkeypatch.context() as patch:
        patch.setattr(type(attacks["pgd3"]), "build", lambda self, threat: 1 / 0)
        assert isinstance(call("--weights", "author.tar", *OPTIONS, "--output", "out").exception, ZeroDivisionError)
    assert list((project / "out" / ".unfinished").rglob("*.npz"))
    monkeypatch.setattr(type(attacks["fgsm"]), "build", lambda self, threat: lambda *_, **__: 1 / 0)
    assert call("--weights", "author.tar", *OPTIONS, "--output", "out").exit_code == 0
    one, other = (files.read_arrays(project / name / "outcomes.npz") for name in ("whole", "out"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_two_at_once_do_not_mix_in_one_folder(project, monkeypatch):
    """Files of one name in two folders, whose results go to the same place; the second begins while the first runs."""
    weights(project, **{"head.bias": torch.ones(10)})
    (project / "theirs").mkdir()
    (project / "changed.pt").rename(project / "theirs/author.pt")
    evaluate, seconds = evaluating.evaluate, []

    def meanwhile(*arguments, **keywords):
        monkeypatch.setattr(evaluating, "evaluate", evaluate)
        seconds.append(call("--weights", "theirs/author.pt", *OPTIONS))
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(evaluating, "evaluate", meanwhile)
    assert call("--weights", "author.tar", *OPTIONS).exit_code == 0
    (second,) = seconds
    message = "another `sglr evaluate` into artifacts/foreign/author holds"
    assert (second.exit_code, message in second.output) == (1, True), second.output
    model = models.load_model(project / "artifacts/foreign/author/model/last")
    assert not torch.equal(model.head.bias, torch.ones(10))


def test_cut_short_while_it_writes_no_number_goes_with_an_earlier_record(project, monkeypatch):
    arguments, folder = ("--weights", "author.tar", *OPTIONS, "--output", "out"), project / "out"
    assert call(*arguments, "--n-examples", 4).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(processes, "alongside", lambda *_: 1 / 0)
        assert isinstance(call(*arguments, "--n-examples", 6).exception, ZeroDivisionError)
    assert gather(folder).results is None
    assert call(*arguments, "--n-examples", 6).exit_code == 0
    found = gather(folder)
    assert found.results["n_examples"]["natural"] == found.suite["evaluate"]["n_examples"] == 6


def test_the_curve_over_eps_is_printed_with_its_intervals(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["evaluate"]["sweep"] = {"eps_255": [5.0], "steps": 2}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    result = call("--weights", "author.tar", *OPTIONS)
    assert result.exit_code == 0, result.output
    outcome = files.read_arrays(project / "artifacts/foreign/author/outcomes.npz")["sweep/last/5"]
    low, high = evaluation.wilson(int(outcome.sum()), 40)
    row = f"eps 5/255 40 {outcome.mean():.2%} {low:.2%} to {high:.2%}"
    assert row in " ".join(result.output.split())


def test_kept_images_are_scored_again_in_another_process(project, monkeypatch):
    write = evaluating.write

    def tampering(result, folder):
        write(result, folder)
        arrays = files.read_arrays(folder / "worst.npz")
        arrays["last/correct"][:2] = ~arrays["last/correct"][:2]
        files.write_arrays(folder / "worst.npz", arrays)

    monkeypatch.setattr(evaluating, "write", tampering)
    result = call("--weights", "author.tar", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "FLAG last: 2 of 40 worst-case images are scored otherwise in a new process" in result.output
