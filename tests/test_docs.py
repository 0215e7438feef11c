"""Every code block of README.md and docs/ is run, as the page says it, in a folder of its own."""

import ast
import doctest
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from docs_pages import RUN, SHOWN, SHRINK, Block, commands, is_runnable, read_blocks
from hub_double import HubDouble
from hub_models import tiny_fields
from transformers import PreTrainedConfig
from warm import Warm

import configuration_csmae
import image_processing_csmae
import modeling_csmae
from csmae_hf.sample.generate import generate_sample

ROOT = Path(__file__).resolve().parents[1]
DRIVER = Path(__file__).with_name("docs_pages.py")
MENU = ROOT / "docs" / "index.md"
OF_THE_SITE = ("index", "contributing", "security")  # docs/conf.py fills them with what lies elsewhere
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in [*DOCS.glob("*.md"), *DOCS.glob("recipes/*.md")] if page.stem not in OF_THE_SITE),
]
RUNNABLE = [page for page in PAGES if any(is_runnable(block) for block in read_blocks(page))]
SMALL = (
    f"--model_overrides '{json.dumps(tiny_fields('sesd'))}' --max_steps 2 --per_device_train_batch_size 4 --max_train_tiles 16 "
    "--max_eval_tiles 8 --data demo/sample"
)


@dataclass
class Workplace:
    """What every page finds, and the processes that run pages."""

    demo: Path
    warm: Warm

    def run(self, command: Sequence[str], folder: Path, **environment: str) -> None:
        """Run a page, or a command, in a folder."""
        done = self.warm.run(command, cwd=folder, **environment)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def workplace(open_hub: HubDouble, warm_at_hub: Warm, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """What `make demo` makes, of the first of its tiles and its model after a few steps; and a loopback Hub."""
    base = tmp_path_factory.mktemp("docs")
    generate_sample(base / "demo" / "sample", tiles=300, seed=0)
    place = Workplace(base / "demo", warm_at_hub)
    train = [str(ROOT / "run_pretraining.py"), str(ROOT / "configs" / "demo.yaml"), "--data", "demo/sample"]
    place.run([*train, "--max_steps", "6", "--max_train_tiles", "128", "--output_dir", "demo/model-seed42"], base)
    return place


def prepare(folder: Path, workplace: Workplace) -> None:
    """Lay out a page's folder: the demo as a copy, since a page may write there, the archive and the code as links."""
    (folder / "demo").mkdir()
    (folder / "demo" / "sample").symlink_to(workplace.demo / "sample")
    shutil.copytree(workplace.demo / "model-seed42", folder / "demo" / "model-seed42")
    for name in ("configs", "benchmarks", "run_pretraining.py", "run_retrieval.py"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def prepare_readme(folder: Path, workplace: Workplace) -> dict[str, str]:
    """The README speaks of BigEarthNet: give it the sample under this name, and small trainings."""
    (folder / "BigEarthNet").symlink_to(workplace.demo / "sample")
    return {SHRINK: SMALL}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_pages_blocks_run(page: Path, workplace: Workplace, tmp_path: Path) -> None:
    prepare(tmp_path, workplace)
    changes = prepare_readme(tmp_path, workplace) if page.name == "README.md" else {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    workplace.run([str(DRIVER), str(page)], tmp_path, MPLBACKEND="agg", PATH=path, **changes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in read_blocks(page):
        assert block.language in RUN + SHOWN, f"{page.name}, line {block.line}: a block of {block.language}"
        assert block.language or block.skipped, f"{page.name}, line {block.line}: say python, console or text"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("mailto:", "#")):
            continue
        file, _, anchor = target.partition("#")
        assert (page.parent / file).exists(), f"{page.name} links to {target}"
        if anchor and file.endswith(".md"):
            titles = re.findall(r"^#+ (.+)$", (page.parent / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {slug(title) for title in titles}, f"{page.name} links to {target}"


def test_every_field_of_the_configuration_is_on_its_page_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S", page, flags=re.MULTILINE))
    base = {field.name for field in fields(PreTrainedConfig)}
    own = [field for field in fields(configuration_csmae.CSMAEConfig) if field.name not in base]
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in own}
    assert {name: ast.literal_eval(default) for name, default in written.items()} == defaults


def test_every_place_in_the_code_that_a_page_names_is_there() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    places = re.findall(
        r"`((?:csmae_hf|tests|benchmarks|configs)/[\w/.-]+\.\w+)`(?:, `(\w+)`)?(?: and `(\w+)`)?", pages
    )
    assert len(places) > 20
    for path, *names in places:
        assert (ROOT / path).exists(), f"a page names {path}"
        for name in filter(None, names):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), f"a page looks for {name} in {path}"


def test_the_floors_of_the_figure_are_those_that_are_checked() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    checked = re.findall(r"csmae_hf\.(\w+)", settings["importlinter:contract:floors"]["layers"])
    figure = (ROOT / "docs" / "floors.svg").read_text(encoding="utf-8")
    drawn = re.findall(r"\w+", " ".join(re.findall(r'font-weight="bold"[^>]*>([^<]+)<', figure)[1:]))
    helpers = {"cpu", "optional", "registration"}  # too small to be drawn
    assert [room for room in drawn if room in checked] == [room for room in checked if room not in helpers]


def test_every_figure_on_performance_is_of_the_run_beside_it() -> None:
    """A number of the page is one of the JSON's, rounded as the page writes it, or part of what the JSON says in words."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    run = (ROOT / "docs" / "performance.json").read_text(encoding="utf-8")
    measured = [float(number) for number in re.findall(r": (-?[\d.]+(?:e[+-]?\d+)?)(?=[,}\n])", run)]
    stated = {
        number.replace(",", "")
        for text in re.findall(r'"[^"]*"', run)
        for number in re.findall(r"\d[\d,.]*\d|\d", text)
    }
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|CSMAE\S*|S[12]\b|\bF1\b|\bv2\b", "", page, flags=re.DOTALL)
    assert len(page.split()) < 1000
    figures = [
        figure.replace(",", "").replace("\u2212", "-") for figure in re.findall(r"\u2212?\d[\d,]*(?:\.\d+)?", prose)
    ]
    assert len(figures) > 60
    unknown = [
        figure
        for figure in figures
        if figure not in stated
        and not any(f"{value:.{len(figure.partition('.')[2])}f}" == figure for value in measured)
    ]
    assert unknown == []


def test_every_page_is_in_the_menu_of_the_site_once() -> None:
    menu = re.findall(r"^([\w/-]+)$", MENU.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pages = [page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES[1:] if page.stem != "README"]
    assert sorted(menu) == sorted([*pages, "contributing", "reference", "security"])


def test_docstrings_reach_the_site_as_they_are_meant() -> None:
    """`make docs` says whether the whole reference can be read; here is what it would read differently without a word."""
    settings = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    docstring = """As of [`Archive`]: |q & r| and **options of `a|b_`.

    code = 2 * x

Args:
    **options: A `name`.

Example:
    >>> 2**3 * 1
    8"""
    lines = docstring.split("\n")
    settings["as_restructured_text"](None, "function", "name", None, None, lines)
    assert (
        "\n".join(lines)
        == r"""As of ``Archive``: \|q & r\| and \*\*options of ``a|b_``.

.. code-block:: text

        code = 2 * x

Args:
    \*\*options: A ``name``.

Example:
    >>> 2**3 * 1
    8"""
    )


def test_every_make_target_that_a_page_names_has_a_recipe() -> None:
    """A merge once lost the recipe of `make bench`, and make said that there was nothing to be done."""
    makefile = (ROOT / "Makefile").read_text()
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?:`|^)make ([a-z]+)(?:`|$| {2,}#)", page.read_text(), re.MULTILINE)
    }
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    rules = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"bench", "docs", "test", "demo"} <= named
    assert (named | phony) <= rules


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.stem != "README" and f"]({page.relative_to(DOCS)})" not in index]
    assert not missing


def test_troubleshooting_quotes_what_the_code_says() -> None:
    """Each heading in code is a part of a message: of this project's source, unless the page says whose it is."""
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*.py"))
    source += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "csmae_hf").rglob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert len(quoted) >= 20
    assert [words for words in quoted if words not in source] == []


@pytest.mark.parametrize(
    "module", [configuration_csmae, modeling_csmae, image_processing_csmae], ids=lambda one: one.__name__
)
def test_examples_in_docstrings_are_true(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs={"np": np, "torch": torch})
    assert found.failed == 0


def slug(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_pages_are_read_as_their_rules_say(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n# a remark\n$ echo one \\\n  two\n\nmake demo\n```\n<!-- not run: a reason -->\n\n```python\nbroken(\n```\n"
        "<!-- not run: -->\n```python\nraise SystemExit('line nine')\n```\n"
    )
    first, second, third = read_blocks(page)
    assert list(commands(first.text)) == ["echo one two", "make demo"]
    assert second == Block("python", "broken(", 11, True)
    assert is_runnable(third), "without a reason there is no leave"
    run = subprocess.run([sys.executable, str(DRIVER), str(page)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "line nine" in run.stderr
    page.write_text("```console\nfalse\n```\n")
    run = subprocess.run([sys.executable, str(DRIVER), str(page)], capture_output=True, text=True)
    assert "page.md, line 2: `false` ended with 1" in run.stderr
