"""Write docs/api.md, the API reference, from the docstrings of the source.

python docs/make_api.py [FILE]

The page is made when it is wanted (`make api`) and is not kept in the repository: it would only repeat the source.
"""

import argparse
import ast
import logging
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
FIRST = ("configuration_csmae.py", "modeling_csmae.py", "image_processing_csmae.py", "image_checks_csmae.py")
HEADER = """# API reference

Written by `python docs/make_api.py` from the docstrings: edit those, not this page. A name with an underscore in front is not part of
the API. Shapes: B images, C bands, H x W pixels, L patches, D width of the embeds.
"""
INTERNAL = ("_", "scene")
"""Files that hold no API: packages' own, and the insides of the sample generator."""
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields", "Example")


def write_reference() -> str:
    """The text of the page."""
    modules = [ROOT / name for name in FIRST]
    modules += sorted(path for path in (ROOT / "csmae_hf").rglob("*.py") if not path.name.startswith(INTERNAL))
    parts = [HEADER, "\n".join(f"* [`{module_name(path)}`](#{anchor(path)})" for path in modules) + "\n"]
    parts += [describe_module(path) for path in modules]
    return "\n".join(parts)


def module_name(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def anchor(path: Path) -> str:
    """The anchor of a module's heading."""
    return re.sub(r"[^\w-]", "", module_name(path))


def describe_module(path: Path) -> str:
    """A module: its docstring, then its public classes and functions in the order of the source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [f"## `{module_name(path)}`", "", render(ast.get_docstring(tree) or ""), ""]
    for node in public(tree.body):
        lines += describe(node, f"### `{title(node)}`")
        if isinstance(node, ast.ClassDef):
            for method in public(node.body):
                if not isinstance(method, ast.ClassDef):
                    lines += describe(method, f"#### `{node.name}.{title(method)}`")
    return "\n".join(lines)


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Classes and functions with a docstring whose name does not begin with an underscore."""
    for node in body:
        if (
            isinstance(node, ast.ClassDef | ast.FunctionDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        ):
            yield node


def title(node: ast.ClassDef | ast.FunctionDef) -> str:
    """A name, and for a function its arguments in short."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    names = [
        argument.arg for argument in (*node.args.posonlyargs, *node.args.args) if argument.arg not in ("self", "cls")
    ]
    if node.args.vararg:
        names.append(f"*{node.args.vararg.arg}")
    elif node.args.kwonlyargs:
        names.append("*")
    names += [argument.arg for argument in node.args.kwonlyargs]
    if node.args.kwarg:
        names.append(f"**{node.args.kwarg.arg}")
    is_value = any(isinstance(one, ast.Name) and one.id.endswith("property") for one in node.decorator_list)
    return node.name if is_value else f"{node.name}({', '.join(names)})"


def describe(node: ast.ClassDef | ast.FunctionDef, heading: str) -> list[str]:
    """The heading, the signature with its types, and the docstring."""
    lines = [heading, ""]
    if isinstance(node, ast.FunctionDef) and heading.endswith(")`"):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        lines += ["```text", *textwrap.wrap(f"{node.name}({ast.unparse(node.args)}){returns}", 120), "```", ""]
    return [*lines, render(ast.get_docstring(node) or ""), ""]


def render(docstring: str) -> str:
    """A Google-style docstring as Markdown."""
    lines: list[str] = []
    section, in_block = "", False
    for line in docstring.splitlines():
        heading = re.fullmatch(rf"({'|'.join(SECTIONS)}):", line)
        if heading:
            lines += ["```"] if in_block else []
            section, in_block = heading[1], heading[1] == "Example"
            lines += [f"**{section}**", ""] + (["```text"] if in_block else [])
        elif section == "Example":
            lines.append(line.removeprefix("    "))
        elif section and (entry := re.fullmatch(r"    ([\w*`., |]+?): (.*)", line)) and section != "Returns":
            lines.append(f"* `{entry[1].strip('`')}`: {escape(entry[2])}")
        elif section and line.startswith("    "):
            lines.append(f"  {escape(line.strip())}" if section != "Returns" else escape(line.strip()))
        else:
            section = section if not line.strip() else ""
            lines.append(line if line.startswith("    ") else escape(line))
    return "\n".join([*lines, "```"] if in_block else lines).strip()


def escape(line: str) -> str:
    """Links to other docstrings become code, and stray asterisks stay what they are."""
    return re.sub(r"\[(`[^`]+`)\](?!\()", r"\1", line)


def main() -> int:
    """Write the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, help="where to write it (default: docs/api.md)")
    page = parser.parse_args().page
    page.write_text(write_reference(), encoding="utf-8")
    logging.info("%s", page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
