"""What needs an optional package says how to install it, by a command that works from anywhere."""

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from csmae_hf.optional import REQUIREMENTS, needs_package

ROOT = Path(__file__).resolve().parents[1]


def test_the_packages_are_those_of_the_extras() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    users = {
        line for extra in ("viz", "geo", "probe", "faiss", "milvus", "app", "mteb") for line in extras[extra].split()
    }
    assert set(REQUIREMENTS.values()) == users


def test_one_that_is_missing_is_named_with_its_command() -> None:
    error = needs_package("The page", "gradio", ModuleNotFoundError("No module named 'gradio'", name="gradio"))
    assert str(error) == "The page needs gradio: pip install 'gradio>=6.31,<7'"


@pytest.mark.parametrize(
    "cause", [ImportError("libGL.so.1 is missing"), ModuleNotFoundError("No module named 'httpx'", name="httpx")]
)
def test_one_that_is_broken_is_not_called_missing(cause: ImportError) -> None:
    message = str(needs_package("The page", "gradio", cause))
    assert message.endswith(f"(the one that is installed cannot be imported: {cause})")


def test_nothing_tells_anybody_to_install_the_package_from_an_index() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = listed.stdout.splitlines() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")]
    asked = re.compile(r"pip install [^\n`]*csmae[-_]hf")
    for path in paths:
        if Path(path).suffix in (".py", ".md", ".txt", ".ipynb", ".html", ".yaml") and (ROOT / path).is_file():
            found = asked.search((ROOT / path).read_text(encoding="utf-8"))
            assert path == "tests/test_optional.py" or not found, f"{path}: {found}"
