"""Texts lose the folders of a machine, and nothing else."""

import pytest

from csmae_hf.embedding.without_paths import public_name, without_paths


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/a.tif: band B02 is empty", "a.tif: band B02 is empty"),
        ("tile 7 (/home/my own files/a b.tif) has no band", "tile 7 (a b.tif) has no band"),
        ("path=/data/x", "path=x"),
        ("read:/data/x", "read:x"),
        ("/data/tiles/", "tiles"),
        ("../../home/x", "x"),
        ("./tiles", "tiles"),
        ("runs/../../secret/x", "runs/x"),
        ("~/tiles/a", "a"),
        ("~somebody/a", "a"),
        ("C:\\Users\\me\\a.tif is broken", "a.tif is broken"),
        ("d:/tiles/a.tif", "a.tif"),
        ("\\\\server\\share\\a", "a"),
        ("file:///home/me/a.tif", "a.tif"),
        ("/a/b.tif and /c/d.tif differ", "d.tif differ"),
        ("first\n/home/me/b.tif", "first\nb.tif"),
    ],
)
def test_of_a_path_its_last_part_is_left(text: str, left: str) -> None:
    assert without_paths(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "S1/S2 at 10 m/s, 3/4 of 2020/01/01",
        "owner/name",
        "https://huggingface.co/owner/name/tree/main",
        "s3://bucket/key",
        "a / b",
        "B8A..B12",
        "/",
        "~5 %",
    ],
)
def test_what_is_no_path_of_a_machine_stays(text: str) -> None:
    assert without_paths(text) == text


def test_mappings_and_lists_are_looked_through() -> None:
    held = {"/home/me/a": ["/home/me/b", 3, None, {"x": ("~/c", True)}]}
    assert without_paths(held) == {"a": ["b", 3, None, {"x": ("c", True)}]}


def test_a_name_of_the_hub_stays_and_a_folder_has_its_own_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "runs" / "seed 42").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs")
    assert public_name("owner/name") == "owner/name"
    assert public_name("../runs/seed 42") == "seed 42"
    assert public_name(".") == "runs"
    assert public_name("a/b/c") == "c"
    monkeypatch.chdir(tmp_path)
    assert public_name("runs/seed 42/") == "seed 42", "a folder that looks like a name of the Hub"
