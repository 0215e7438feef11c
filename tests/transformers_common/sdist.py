"""Transformers' own common tests, from the source distribution of the version that is installed.

The wheel has no tests; the source distribution has the common ones, without the helper packages that they import beside
them. Those are stubbed here: export and generation mixins without tests, and the fields a configuration is tried with.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

import transformers

MODULES = ("test_modeling_common", "test_configuration_common")
PACKAGE = "transformers_common_tests"

CONFIG_FIELDS: dict[str, Any] = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["CSMAEModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
"""Stands in for the table of the Transformers repository that `check_config_arguments_init` sets and reads back."""


class CommonTestsUnavailableError(RuntimeError):
    """The source distribution is not here and could not be downloaded."""


def cache_folder() -> Path:
    """Where the common tests of the installed version lie: in the virtual environment, made anew with it."""
    return Path(sys.prefix) / "cache" / f"transformers-{transformers.__version__}-common-tests"


def download_sdist(folder: Path) -> Path:
    """Download the source distribution of the installed Transformers.

    Args:
        folder: Where to put it.

    Returns:
        The archive.

    Raises:
        CommonTestsUnavailableError: If pip cannot get it; the message ends with pip's.
    """
    wanted = f"transformers=={transformers.__version__}"
    options = ["--no-binary", "transformers", "--no-deps", "--no-build-isolation", "--retries", "1", "--timeout", "15"]
    command = [sys.executable, "-m", "pip", "download", wanted, *options, "--quiet", "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommonTestsUnavailableError(f"{wanted}: no source distribution after {error.timeout:.0f} s.") from error
    archives = sorted(folder.glob("transformers-*.tar.gz"))
    if done.returncode or not archives:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise CommonTestsUnavailableError(f"{wanted}: pip could not download the source distribution ({last}).")
    return archives[0]


def unpacked_tests() -> Path:
    """Return the folder of the common tests, downloading them once.

    Raises:
        CommonTestsUnavailableError: If they cannot be downloaded, unpacked or stored; the message says why.
    """
    folder = cache_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive = download_sdist(Path(scratch))
            unpacked = Path(scratch) / "tests"
            _extract(archive, unpacked)
            _move_once(unpacked, folder)
    except (OSError, tarfile.TarError, KeyError) as error:
        raise CommonTestsUnavailableError(f"The common tests cannot be stored in {folder} ({error}).") from error
    return folder


def _extract(archive: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()  # the configuration tests look for it
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        for module in MODULES:
            source = tar.extractfile(f"{root}/tests/{module}.py")
            if source is None:
                raise KeyError(module)
            (folder / f"{module}.py").write_bytes(source.read())


def _move_once(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # else another process of the test run was first
            raise


def load_common_tests() -> tuple[type, type]:
    """Import the common tests of the installed version.

    Returns:
        `ModelTesterMixin` and `ConfigTester`.

    Raises:
        CommonTestsUnavailableError: If they cannot be had.
    """
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(unpacked_tests())]
    sys.modules[PACKAGE] = package
    stubs: dict[str, dict[str, Any]] = {
        "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
        "utils.test_configuration_utils": {"config_common_kwargs": CONFIG_FIELDS},
    }
    for name, content in stubs.items():
        parent = f"{PACKAGE}.{name.split('.')[0]}"
        sys.modules[parent] = types.ModuleType(parent)
        sys.modules[parent].__path__ = []
        stub = types.ModuleType(f"{PACKAGE}.{name}")
        vars(stub).update(content)
        sys.modules[stub.__name__] = stub
    modeling, configuration = (importlib.import_module(f"{PACKAGE}.{module}") for module in MODULES)
    return modeling.ModelTesterMixin, configuration.ConfigTester


def required() -> bool:
    """Whether going without the common tests is a failure: in CI it is."""
    return os.environ.get("CI") == "true"
