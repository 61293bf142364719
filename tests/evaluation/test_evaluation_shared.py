"""Several processes on one evaluation: the same bytes, one error, no orphans."""

import pytest
import torch
from evaluation_study import CPU, make

from sglr import evaluation, files, models, processes
from sglr.config.errors import ModelError

ATTACKS = {"fgsm": "fgsm", "apgd": {"name": "apgd", "steps": 3, "n_examples": 24}}


def test_the_number_of_processes_changes_no_byte(params, tmp_path):
    sweep = {"eps_255": [5.0], "steps": 2}
    study = make(params, tmp_path, attacks=ATTACKS, batch_size=8, sweep=sweep)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for nproc in (1, 2):
            folder = tmp_path / str(nproc)
            result = evaluation.evaluate(*study, device=CPU, pieces=folder / "pieces", nproc=nproc)
            evaluation.write(result, folder)
    finally:
        torch.set_num_threads(before)
    for name in ("metrics.json", "outcomes.npz", "worst.npz"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    pieces = [sorted(path.name for path in (tmp_path / n / "pieces").rglob("*.npz")) for n in "12"]
    assert pieces[0] == pieces[1]


def test_resuming_is_said(params, tmp_path):
    study = make(params, tmp_path)
    said = []
    for _ in range(2):
        evaluation.evaluate(*study, device=CPU, pieces=tmp_path / "pieces", on_resume=said.append)
    assert said == [len(list((tmp_path / "pieces").rglob("*.npz")))]
    assert said[0] > 2 * 3  # the natural predictions, and attacks


@pytest.mark.parametrize("nproc", [1, 2])
def test_natural_accuracy_is_said_once_per_checkpoint_before_its_attacks(params, tmp_path, nproc):
    """Before any of its attacks is on disk; of all examples, whichever process takes them."""
    study, folder = make(params, tmp_path, attacks={"fgsm": "fgsm"}, batch_size=8), tmp_path / "pieces"
    said = []

    def say(checkpoint, accuracy, examples):
        said.append((checkpoint, accuracy, examples))
        if nproc == 1:
            assert not list((folder / checkpoint / "fgsm").glob("*.npz"))
        assert len(list((folder / checkpoint / "natural").glob("*.npz"))) == 5

    result = evaluation.evaluate(*study, device=CPU, pieces=folder, nproc=nproc, on_natural=say)
    assert said == [(name, result.accuracy("natural", name), 40) for name in ("best", "last")]


def test_a_model_that_gives_nan_is_named_before_others_begin(params, tmp_path, monkeypatch):
    config, prepared, trained = make(params, tmp_path)
    model = models.load_model(trained / "last")
    model.head.weight.data.fill_(float("nan"))
    models.save(model, trained / "last", files.read_json(trained / "last/model.json"))
    monkeypatch.setattr(processes, "alongside", None)
    with pytest.raises(ModelError, match=r"the model at .*last gives NaN or infinite logits"):
        evaluation.evaluate(config, prepared, trained, device=CPU, pieces=tmp_path / "pieces", nproc=2)
    assert not (tmp_path / "pieces").exists()


def test_a_model_that_does_not_fit_is_said_before_any_work(params, tmp_path):
    config, data, trained = make(params, tmp_path)
    (trained / "last" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(files.FileError, match="last"):
        evaluation.evaluate(config, data, trained, device=CPU, pieces=tmp_path / "pieces", nproc=2)
    assert not list(tmp_path.glob("pieces/**/*.npz"))
    assert models.load_model(trained / "best")
