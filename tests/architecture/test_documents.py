"""What people read says what is true: links lead somewhere, both READMEs say the same, tables name what there is."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import subspace
from subspace.cli.main import VERBS
from subspace.core.errors import SubspaceError
from subspace.methods.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def code_lines(text: str) -> list[str]:
    """Return the lines of code blocks without comments and without what is explained beside a file's name."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [re.sub(r"\s+#.*$", "", line) for block in blocks for line in block.splitlines()]
    return [re.split(r"\s{2,}(?=[^\x00-\x7f])", line)[0].rstrip() for line in lines]


def links(text: str) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]


def test_the_chinese_readme_keeps_step() -> None:
    english, chinese = (re.findall(r"^#+ ", text, flags=re.MULTILINE) for text in (ENGLISH, CHINESE))
    assert english == chinese, "other headings"
    assert links(ENGLISH)[1:] == links(CHINESE)[1:], "other links"
    commands = [[line for line in code_lines(text) if not line.startswith("  ")] for text in (ENGLISH, CHINESE)]
    assert commands[0] == commands[1], "other commands"
    cells = [
        re.findall(r"^\| (`[^|]+`)", re.sub(r"（[^）]*）|\([^)]*\)|、|, ", "", text), re.M)
        for text in (ENGLISH, CHINESE)
    ]
    assert [cell.strip() for cell in cells[0]] == [cell.strip() for cell in cells[1]], "other methods in the table"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_readme_names_every_method_and_real_verbs() -> None:
    table = ENGLISH[ENGLISH.index("| method |") : ENGLISH.index("`subspace methods NAME`")]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(REGISTRY.names())
    verbs = {name for names in VERBS.values() for name in names}
    assert set(re.findall(r"^subspace (\w+)", ENGLISH, flags=re.MULTILINE)) <= verbs


def test_the_readme_lists_every_exit_status() -> None:
    def below(kind: type[SubspaceError]) -> set[int]:
        return {kind.exit_status}.union(*(below(each) for each in kind.__subclasses__()))

    section = ENGLISH[ENGLISH.index("## Errors") :].split("##")[1]
    assert below(SubspaceError) <= set(map(int, re.findall(r"\b(\d+) [a-z]", section)))


def test_the_run_folder_of_the_readme_is_the_real_one() -> None:
    from subspace.runs.layout import RunLayout

    layout = RunLayout(Path("run"))
    block = ENGLISH[ENGLISH.index("## A run folder") : ENGLISH.index("## Errors")]
    for path in (
        layout.config,
        layout.plan,
        layout.manifest,
        layout.log,
        layout.metrics,
        layout.loss_plot,
        layout.card,
    ):
        assert path.name in block
    for path in (layout.checkpoints, layout.adapter, layout.model, layout.predictions("x").parent):
        assert f"{path.name}/" in block


def test_the_architecture_names_every_room_and_the_floors_of_the_contract() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "src" / "subspace").glob("*/__init__.py")}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", text)} == set()
    table = text[text.index("## The rooms") : text.index("## How a run goes")]
    assert {room for room in rooms if f"`{room}`" not in table} <= {"cli", "integrations"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = next(c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    drawn = text[text.index("cli                ") :].split("```")[0]
    floors = [re.split(r"\s{2,}", line)[0].replace(" ", "") for line in drawn.strip().splitlines()]
    assert floors == [layer.replace(" ", "") for layer in layers]


def test_one_version_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == subspace.__version__
    assert f"## {subspace.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_python_versions_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {name.rsplit(" ", 1)[1] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert declared == {"3.11", "3.12", "3.13"}
    assert "Python 3.11 to 3.13" in ENGLISH


def test_ci_runs_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "make test" in ENGLISH
    assert {"demo:", "test:", "check:"} <= {line.split(" ")[0] for line in makefile.splitlines() if ":" in line}
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_method_pages_are_those_of_the_cards() -> None:
    spec = importlib.util.spec_from_file_location("method_pages", ROOT / "scripts" / "method_pages.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    wanted = script.pages()
    docs = ROOT / "docs"
    written = [docs / "recipe.md", *(docs / "methods").iterdir()]
    found = {path.relative_to(docs).as_posix(): path.read_text(encoding="utf-8") for path in written}
    assert found == wanted, "run python scripts/method_pages.py"
