"""What becomes of Transformers' common tests where they cannot be downloaded."""

from pathlib import Path

import pytest

from . import sdist


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a pip that finds nothing."""
    monkeypatch.setattr(sdist, "cache_folder", lambda: tmp_path / "cache" / "tests")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def test_a_failed_download_says_what_was_wanted_and_leaves_nothing(no_index: Path) -> None:
    with pytest.raises(sdist.CommonTestsUnavailableError, match=f"transformers=={sdist.transformers.__version__}.*pip"):
        sdist.load_common_tests()
    assert list((no_index / "cache").iterdir()) == []


@pytest.mark.parametrize(("value", "required"), [("true", True), ("", False), (None, False)])
def test_only_ci_insists_on_them(monkeypatch: pytest.MonkeyPatch, value: str | None, required: bool) -> None:
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    assert sdist.required() is required


def test_a_stored_copy_needs_no_index(no_index: Path) -> None:
    stored = sdist.cache_folder()
    stored.mkdir(parents=True)
    assert sdist.unpacked_tests() == stored
