"""What this room uses of others' private parts is in one list, and each of it is still there."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer

import csmae_hf.training
from csmae_hf.training.trainer import PRIVATE_API, CSMAETrainer

FILES = sorted(Path(csmae_hf.training.__path__[0]).glob("*.py"))
PUBLIC_ALL_THE_SAME = {"_replace"}  # of a named tuple, documented
LISTED = {path.rpartition(".")[2] for path in PRIVATE_API}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def find(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ImportError:
        return getattr(find(module), name)


def sets_on_itself(owner: Any, name: str) -> bool:
    """Whether a class gives its objects an attribute of that name, itself or by what it derives from."""
    classes = [each for each in inspect.getmro(owner) if each is not object] if inspect.isclass(owner) else []
    pattern = rf"\bself\.{name}\b(: [^=\n]+)? *[-+]?=[^=]"
    return any(re.search(pattern, inspect.getsource(each)) for each in classes)


@pytest.mark.parametrize("path", PRIVATE_API)
def test_each_member_is_still_there(path: str) -> None:
    owner, _, name = path.rpartition(".")
    found = find(owner)
    assert hasattr(found, name) or sets_on_itself(found, name), (
        f"This release has no {path} any more ({PRIVATE_API[path]}): find what took its place, and change the list."
    )


@pytest.mark.parametrize(
    "name", sorted(name for name in vars(CSMAETrainer) if inspect.isfunction(getattr(Trainer, name, None)))
)
def test_what_is_overridden_takes_the_same_arguments(name: str) -> None:
    own, its = (inspect.signature(getattr(cls, name)).parameters for cls in (CSMAETrainer, Trainer))
    if name == "__init__" or any(each.kind is each.VAR_POSITIONAL for each in own.values()):
        return
    assert list(own) == list(its), f"Trainer.{name} takes other arguments in this release"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whatever_private_is_used_is_listed(file: Path) -> None:
    """Private is one's own if this file defines it and nothing that it builds on does; all else must be on the list."""
    tree = ast.parse(file.read_text())
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.attr if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" else "")
            own.add(node.id if isinstance(node, ast.Name) else "")
    module = importlib.import_module(f"csmae_hf.training.{file.stem}".removesuffix(".__init__"))
    classes = [each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__]
    bases = {base for each in classes for base in each.__mro__[1:] if base is not object}
    own = {
        name
        for name in own
        if is_private(name) and not any(hasattr(base, name) or sets_on_itself(base, name) for base in bases)
    }
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    parts_of_words = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("with"))
        for part in ast.walk(node)
    }
    used |= {
        node.value  # as of getattr
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts_of_words
    }
    used |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    assert {name for name in used if name.isidentifier() and is_private(name)} - own - PUBLIC_ALL_THE_SAME <= LISTED


def test_nothing_is_listed_that_is_not_used() -> None:
    code = "\n".join(file.read_text() for file in FILES)
    code = re.sub(r"PRIVATE_API = \{.*?\n\}", "", code, flags=re.DOTALL)
    assert [name for name in sorted(LISTED) if not re.search(rf"\b{name}\b", code)] == []


def test_each_reason_says_how_it_is_used() -> None:
    for reason in PRIVATE_API.values():
        assert re.match(r"(read|written|replaced|restored|kept and restored|overridden): \S", reason), reason
