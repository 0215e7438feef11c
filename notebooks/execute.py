"""Run a notebook from top to bottom and keep its outputs; fails where a cell fails.

    python notebooks/execute.py                             runs notebooks/first_search.ipynb and saves it with its outputs
    python notebooks/execute.py --out small.ipynb --set TILES=60 --set EPOCHS=1

Settings replace lines `NAME = value` of the cell tagged `parameters`.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def execute(notebook: Path, out: Path, settings: dict[str, str]) -> None:
    """Run a notebook in an empty folder and write it with its outputs.

    Args:
        notebook: The notebook.
        out: Where to write it.
        settings: Values of parameters by name.

    Raises:
        ValueError: If a setting is no parameter of the notebook.
    """
    content = nbformat.read(notebook, as_version=4)
    for name, value in settings.items():
        cells = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
        changed = 0
        for cell in cells:
            cell.source, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", cell.source, flags=re.MULTILINE)
            changed += count
        if not changed:
            raise ValueError(
                f"{notebook.name} has no parameter {name}: expected a line `{name} = value` in a cell tagged so."
            )
    os.environ.update(
        TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1"
    )
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(content, timeout=280, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute()
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # times of the run, other at each
        if cell.cell_type == "code":  # warnings name folders of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    content.metadata.pop("language_info", None)
    nbformat.write(content, out)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", nargs="?", type=Path, default=HERE / "first_search.ipynb")
    parser.add_argument("--out", type=Path, help="where to write it (default: over the notebook)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="value of a parameter")
    arguments = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in arguments.set)
    execute(arguments.notebook, arguments.out or arguments.notebook, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
