"""The pages of README and documentation as tests: what each kind of code block must do.

| block | what is done with it |
|---|---|
| ```` ```python ```` | run, in the page's namespace and folder |
| ```` ```python file=sglr/labels/x.py ```` | imported as that module of its room, for the rest of the page |
| ```` ```yaml ```` | laid on the shipped params.yaml, which must then be valid |
| ```` ```sh ```` | each command of this project, DVC and make parsed with its options, not run |
| ```` ```console ```` | the same, without the output; those of the tutorial are run by test_docs_tutorial.py |
| ```` ```math ```` | drawn, in the built pages (test_docs_site.py): an error there is a formula that cannot be |

``<!-- skip: next "reason" -->`` before a block leaves it out (sybil's own syntax).
"""

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer
from sybil.parsers.markdown.skip import SkipParser

from sglr.config import Registry, parse
from sglr.config.fields import ROOMS
from sglr.config.reader import validate
from sglr.presets import rendering

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "yaml", "sh", "console", "text", "bibtex", "math"}


class Blocks:
    """Sybil's parser of fenced code blocks by language, with what stands behind the language."""

    def __init__(self, **evaluators: Any) -> None:
        self.evaluators = evaluators
        self.lexer = FencedCodeBlockLexer(language=r".+", mapping={"language": "arguments", "source": "source"})

    def __call__(self, document: Document) -> Iterator[Region]:
        for region in self.lexer(document):
            language, _, rest = region.lexemes["arguments"].partition(" ")
            region.parsed, region.evaluator = region.lexemes["source"], self.evaluators.get(language)
            region.lexemes["arguments"] = rest
            if region.evaluator:
                yield region


def run_python(example: Example) -> None:
    """Run a block, or import it as the file it is."""
    name = example.region.lexemes["arguments"].removeprefix("file=")
    if not name:
        PythonEvaluator()(example)
        return
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(example.parsed, encoding="utf-8")
    if name.startswith("sglr/"):
        load(Path(name), name.removesuffix(".py").replace("/", "."))


def load(path: Path, module: str) -> None:
    """Import a file as a module of sglr, as its room would."""
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = importlib.util.module_from_spec(spec)
    _loaded.append(module)
    spec.loader.exec_module(sys.modules[module])


_loaded: list[str] = []


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """Forget afterwards what pages added inside: modules, and names in the rooms' registries."""
    registries: list[Registry] = [importlib.import_module(room).REGISTRY for room in ROOMS.values()]
    names = [dict(registry._types) for registry in registries]
    try:
        yield
    finally:
        for registry, known in zip(registries, names, strict=True):
            registry._types = known
        while _loaded:
            del sys.modules[_loaded.pop()]


def check_yaml(example: Example) -> None:
    """The page's piece of params.yaml, in the shipped one, must be valid."""
    validate(parse(with_piece((ROOT / "params.yaml").read_text(), example.parsed)))


def with_piece(params: str, piece: str) -> str:
    """The text of a params.yaml with a piece of it merged in, as presets are: comments stay."""
    reader = rendering._round_trip()
    values, above = reader.load(params), reader.load(piece)
    rendering._merge(values, above, above.ca.items)
    written = io.StringIO()
    reader.dump(values, written)
    return written.getvalue()


def check_commands(example: Example) -> None:
    """Commands of a block that exist with the options they are given."""
    prompt = "$ " if "console" in example.document.text[example.start : example.start + 12] else ""
    for command in commands(example.parsed, prompt):
        check_command(command)


def commands(text: str, prompt: str = "") -> list[str]:
    """The commands of a block; of a console block those behind the prompt, in full (a backslash continues one)."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.removeprefix(prompt).strip() for line in lines if line.startswith(prompt) and line.strip()]


def check_command(command: str) -> None:
    """Refuse what the programs' own parsers refuse; others (git, cp) are not looked at."""
    for words in _programs(command):
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["sglr"]:
            _check_click(words[1:])
        elif words[:1] == ["dvc"]:
            _check_dvc(words[1:])
        elif words[:1] == ["make"]:
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(words[1:]) <= set(targets), command


def _programs(command: str) -> Iterator[list[str]]:
    """The words of each program that a line of shell starts, without where it reads from and writes to."""
    reader = shlex.shlex(command, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    words: list[str] = []
    for word in reader:
        if set(word) <= set("<>"):
            next(reader, None)
        elif set(word) <= set("();|&"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def _check_click(words: list[str]) -> None:
    from sglr.cli import main

    command = main.commands[words[0]]
    try:
        command.make_context(words[0], list(words[1:]))
    except click.exceptions.Exit:
        pass
    except click.UsageError as error:
        raise AssertionError(f"sglr {shlex.join(words)}: {error.format_message()}") from None


def _check_dvc(words: list[str]) -> None:
    from dvc.cli import DvcParserError
    from dvc.cli.parser import get_main_parser

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            get_main_parser().parse_args(words)
    except SystemExit as end:  # --help
        if end.code:
            raise AssertionError(f"dvc {shlex.join(words)}") from None
    except DvcParserError as error:
        raise AssertionError(f"dvc {shlex.join(words)}: {error}; see the log") from None


READER = Sybil(
    parsers=[
        Blocks(python=run_python, yaml=check_yaml, sh=check_commands, console=check_commands),
        SkipParser(),
    ],
    path=str(ROOT),
    pattern="*.md",
)


def examples(page: Path) -> list[Example]:
    """The blocks of a page that something is done with, in order."""
    return list(READER.parse(page).examples())


def languages(page: Path) -> list[str]:
    """What stands behind the opening fence of each block of a page."""
    return re.findall(r"^```([^`\n]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def piece(page: str, language: str, number: int = 0) -> str:
    """The text of a page's so many-th block of a language (``python file=...`` included)."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[number]
