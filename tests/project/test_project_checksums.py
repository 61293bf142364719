"""MD5s that are kept between commands: what is read again, and what is not."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml
from disks import disk, fill, read_only

from sglr import files
from sglr.project import checksums, status

LARGE = 2**17


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are read for their MD5."""
    names: list[str] = []
    md5 = files.md5

    def listed(path: Path) -> str:
        names.append(path.name)
        return md5(path)

    monkeypatch.setattr(files, "md5", listed)
    return names


def write(path: Path, content: bytes, age: float = 60) -> Path:
    """A file that was written so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def digest(path: Path, root: Path) -> str | None:
    with checksums.kept(root) as of:
        return of(path)


def test_a_file_is_read_once(tmp_path, read):
    write(tmp_path / "a/large", bytes(LARGE))
    write(tmp_path / "a/small", b"1")
    expected = files.dvc_digest(tmp_path / "a")
    read.clear()
    assert digest(tmp_path / "a", tmp_path) == digest(tmp_path / "a", tmp_path) == expected
    assert sorted(read) == ["large", "small", "small"]
    assert digest(tmp_path / "a/none", tmp_path) is None


def test_from_wherever_a_project_is_looked_at(tmp_path, read, monkeypatch):
    write(tmp_path / "study/large", bytes(LARGE))
    write(tmp_path / "elsewhere", bytes(LARGE))
    monkeypatch.chdir(tmp_path / "study")
    for root in (Path(), tmp_path / "study"):
        assert digest(root / "large", root) == digest(root / "../elsewhere", root)
    assert read == ["large", "elsewhere"]


@pytest.mark.parametrize("how", ["another size", "same size", "by a rename", "by a rename, and as old"])
def test_a_file_that_changed_is_seen(tmp_path, how):
    large = write(tmp_path / "large", bytes(LARGE))
    before, state = digest(large, tmp_path), large.stat()
    if how.startswith("by a rename"):
        write(tmp_path / "new", b"1" * LARGE)
        (tmp_path / "new").replace(large)
    else:
        write(large, b"1" * (LARGE + (how == "another size")), age=30)
    if how.endswith("as old"):
        os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest(large, tmp_path) == files.dvc_digest(large) != before


@pytest.mark.parametrize("age", [0, -60])
def test_one_that_may_be_rewritten_within_the_clocks_resolution_is_read_again(tmp_path, read, age):
    """As is one of the future."""
    large = write(tmp_path / "large", bytes(LARGE), age)
    assert digest(large, tmp_path) == digest(large, tmp_path)
    assert read == ["large", "large"]
    assert not (tmp_path / ".sglr").exists()


def test_one_that_is_written_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    large = write(tmp_path / "large", bytes(LARGE))
    md5 = files.md5

    def overtaken(path: Path) -> str:
        found = md5(path)
        write(path, b"1" * LARGE, age=30)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(files, "md5", overtaken)
        digest(large, tmp_path)
    assert digest(large, tmp_path) == files.dvc_digest(large)


def test_what_is_gone_is_forgotten(tmp_path):
    for name in ("a", "b"):
        digest(write(tmp_path / name, bytes(LARGE)), tmp_path)
    kept = tmp_path / checksums.KEPT
    assert '"a"' in kept.read_text()
    (tmp_path / "a").unlink()
    digest(tmp_path / "b", tmp_path)
    assert '"a"' not in kept.read_text()
    assert '"b"' in kept.read_text()


def test_nothing_is_written_where_nothing_is_new(tmp_path):
    digest(write(tmp_path / "small", b"1"), tmp_path)
    assert not (tmp_path / ".sglr").exists()
    large = write(tmp_path / "large", bytes(LARGE))
    digest(large, tmp_path)
    written = (tmp_path / checksums.KEPT).stat().st_ino
    digest(large, tmp_path)
    assert (tmp_path / checksums.KEPT).stat().st_ino == written


def test_an_interrupted_command_keeps_what_it_read(tmp_path, monkeypatch):
    expected = files.dvc_digest(write(tmp_path / "a", bytes(LARGE)))

    def interrupted(path: Path) -> str:
        raise KeyboardInterrupt

    def look() -> None:
        with checksums.kept(tmp_path) as of:
            of(tmp_path / "a")
            monkeypatch.setattr(files, "md5", interrupted)
            of(write(tmp_path / "b", bytes(LARGE)))

    with pytest.raises(KeyboardInterrupt):
        look()
    assert digest(tmp_path / "a", tmp_path) == expected


def test_damaged_it_is_made_anew(tmp_path, read):
    large = write(tmp_path / "large", bytes(LARGE))
    expected, kept = digest(large, tmp_path), tmp_path / checksums.KEPT
    whole = kept.read_bytes()
    turned = whole.replace(expected.encode(), expected[::-1].encode())
    for damaged in (b"", b"\xff\n{}", whole[:-9], b"{}\n" + whole, turned):
        kept.write_bytes(damaged)
        read.clear()
        assert digest(large, tmp_path) == expected
        assert read == ["large"]
        assert kept.read_bytes() == whole


@pytest.mark.parametrize("what", ["a file for the folder", "a folder for the file", "a full disk", "a read-only disk"])
def test_where_it_cannot_be_written_files_are_read_again(tmp_path, read, what):
    large, own = write(tmp_path / "large", bytes(LARGE)), tmp_path / ".sglr"
    if what == "a file for the folder":
        own.touch()
    elif what == "a folder for the file":
        (own / "md5").mkdir(parents=True)
    elif what == "a full disk":
        with disk(own, 64):
            fill(own)
            assert digest(large, tmp_path) == digest(large, tmp_path) == files.dvc_digest(large)
            assert [path.name for path in own.iterdir()] == ["ballast"]
        return
    else:
        with disk(own, 64):
            read_only(own)
            assert digest(large, tmp_path) == digest(large, tmp_path) == files.dvc_digest(large)
        return
    assert digest(large, tmp_path) == digest(large, tmp_path)
    assert read == ["large", "large"]


def look_often(root: Path, names: list[str]) -> None:
    for _ in range(20):
        for name in names:
            assert digest(root / name, root) == files.dvc_digest(root / name)


def test_two_at_once(tmp_path):
    """Each rewrites the file with what it knows; it is whole at any moment."""
    names = [str(number) for number in range(4)]
    for name in names:
        write(tmp_path / name, name.encode() * LARGE)
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=look_often, args=(tmp_path, part)) for part in (names[:3], names[1:])]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    look_often(tmp_path, names)
    assert [path.name for path in (tmp_path / ".sglr").iterdir()] == ["md5"]


def test_status_reads_a_study_once(tmp_path, read):
    (tmp_path / "params.yaml").write_text("{}")
    stages = {"make": {"cmd": "make", "outs": ["out"]}, "use": {"cmd": "use", "deps": ["out"], "outs": ["used"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    write(tmp_path / "out/weights", bytes(LARGE))
    write(tmp_path / "used", b"1")
    for entry in stages.values():
        for kind in ("deps", "outs"):
            entry[kind] = [{"path": path, "md5": files.dvc_digest(tmp_path / path)} for path in entry.get(kind, ())]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def states() -> list[str]:
        read.clear()
        return [one.state for one in status.status(tmp_path)]

    assert states() == ["done", "done"]
    assert read == ["weights", "used"]
    assert states() == ["done", "done"]
    assert read == ["used"]
    write(tmp_path / "out/weights", b"1" * LARGE, age=30)
    assert states() == ["out of date", "waiting"]
    shutil.rmtree(tmp_path / ".sglr")
    assert states() == ["out of date", "waiting"]
