"""What the READMEs say exists: commands with their options, targets, modules, links, and a README for every room."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from consent.__main__ import main as audit
from orchestration.cli import app
from simulator.__main__ import arguments as simulator_arguments
from tests.agreement import committed
from tests.agreement.committed import ROOT

_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
_PLACEHOLDER = re.compile(r"<[^>]*>")


def commands(program: str) -> list[tuple[str, str]]:
    """(README, what follows the program) for every line of a fence and every inline code that calls it."""
    return [
        (committed.name(path), said.removeprefix(program).strip())
        for path in committed.readmes()
        for said in spoken(path.read_text())
        if said == program or said.startswith(f"{program} ")
    ]


def spoken(text: str) -> Iterator[str]:
    """Commands in code: without comment, prompt or path of the environment; placeholders become one word."""
    fences = [line for fence in _FENCE.findall(text) for line in fence.splitlines()]
    for said in (*fences, *_INLINE.findall(_FENCE.sub("", text))):
        for part in re.split(r"&&|\s#", _PLACEHOLDER.sub("NAME", said))[: 1 if " #" in said else None]:
            yield re.sub(r"^(\$ )?(\.venv/bin/)?", "", part.strip())


def words(said: str) -> list[str]:
    return shlex.split(said)


@pytest.mark.parametrize(("readme", "said"), commands("troth"))
def test_every_troth_command_of_a_readme_parses(readme: str, said: str) -> None:
    command = typer.main.get_command(app)
    rest = words(said)
    path = ["troth"]
    while hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, (
            f"{readme}: troth {said}: expected one of {sorted(command.commands)}, found {rest[0]}"
        )
        path.append(rest[0])
        command, rest = command.commands[rest[0]], rest[1:]
    assert not hasattr(command, "commands") or not rest
    if not hasattr(command, "commands") and (rest or not any(each.required for each in command.params)):
        command.make_context(" ".join(path), rest)  # raises on a wrong option, a missing value or a wrong type


def test_readmes_name_commands_of_every_group() -> None:
    groups = {words(said)[0] for _, said in commands("troth") if words(said)}
    assert groups >= {"run", "ask", "audit", "segment", "quarantine", "serve", "dev", "bench"}


def test_every_make_target_of_a_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words(said)[0] for _, said in commands("make") if said}
    assert named <= targets
    assert named >= {"run", "test"}


def test_the_auditor_and_the_simulator_take_the_options_their_readmes_name(capsys: pytest.CaptureFixture[str]) -> None:
    for _, said in commands("python -m simulator"):
        simulator_arguments().parse_args(words(said))
    audited = [words(said) for _, said in commands("python -m consent")]
    assert audited
    for said in audited:
        assert audit(said) == 2  # misuse: there is no such folder; an unknown option would have left by SystemExit
        assert "expected a folder, found none" in capsys.readouterr().err


def test_every_file_a_command_names_exists() -> None:
    named = {
        (readme, word.partition("=")[2] or word)
        for program in ("troth", "uv", "python", "make", "source")
        for readme, said in commands(program)
        for word in words(said)
        if word.endswith((".txt", ".yml", ".csv", ".toml"))
    }
    assert len(named) >= 3
    assert [(readme, word) for readme, word in named if not (ROOT / word).is_file()] == []


@pytest.mark.parametrize("path", committed.readmes(), ids=committed.name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    links = [link for link in _LINK.findall(path.read_text()) if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", committed.readmes(), ids=committed.name)
def test_every_module_a_table_names_exists(path: Path) -> None:
    """A row may name a folder first, or a file in one, and then what else is in there."""
    missing = []
    for row in (line for line in path.read_text().splitlines() if line.startswith("|")):
        said = [code for code in _INLINE.findall(row) if re.fullmatch(r"[a-z_/<>]+(\.py|/)", code)]
        folders = [path.parent, *(path.parent / code.rpartition("/")[0] for code in said)]
        named = [code for code in said if "<" not in code]
        missing += [code for code in named if not any((folder / code).exists() for folder in folders)]
    assert missing == []


@pytest.mark.parametrize("room", committed.ROOMS)
def test_every_room_has_a_readme_that_the_map_links_to(room: str) -> None:
    assert (ROOT / room / "README.md").is_file()
    assert f"({room}/README.md)" in (ROOT / "README.md").read_text()
