"""What an archive holds, in lines and in a picture."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csmae_hf.bigearthnet import S1_BANDS, S2_BANDS
from csmae_hf.commands.main import main
from csmae_hf.data.info import describe, draw_tiles
from csmae_hf.data.store import TileStore, write_store


def test_a_real_v1_archive_is_described_as_its_index_does(shared_data: Path) -> None:
    folder = shared_data / "bigearthnet_mm_v1_lmdb"
    text = "\n".join(describe(folder))
    with (folder / "manifest.csv").open(newline="") as lines:
        index = list(csv.DictReader(lines))
    assert "BigEarthNet v1 (pickles, read without unpickling)" in text
    assert "values    78 in" in text
    assert "tiles     78 with s1 and s2" in text
    assert "VH VV (120 x 120 float32)" in text
    assert "B01 B09 (20 x 20 uint16)" in text
    assert "split     train 39, validation 21, test 18\n" in text
    labels = Counter(label for row in index for label in set(row["labels_19"].split("; ")))
    for label, count in labels.items():
        assert f"{count:7d}  {label}" in text
    for country, count in Counter(row["country"] for row in index).items():
        assert f"{country} {count}" in text


def test_the_command_draws_16_tiles_of_both_sensors(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["info", str(shared_data / "bigearthnet_v2_reben_lmdb")]) == 0
    said = capsys.readouterr().out
    assert "BigEarthNet v2 (safetensors)" in said
    assert "values    64 in" in said
    assert "picture   bigearthnet_v2_reben_lmdb_tiles.png\n" in said
    picture = np.asarray(Image.open(tmp_path / "bigearthnet_v2_reben_lmdb_tiles.png").convert("RGB")).astype(float)
    assert picture.shape[1] > 1500
    # eight columns and four rows of pictures: runs of paint between white gaps
    painted = (picture < 250).any(axis=2)
    for axis, count in ((0, 8), (1, 4)):
        share = painted.mean(axis=axis)
        runs = int(((share[1:] > 0.3) & (share[:-1] <= 0.3)).sum())
        assert runs == count


def test_a_store_without_metadata_is_described_and_drawn_as_far_as_can_be(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("matplotlib")
    real = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    names = [next(key for key in real if key.startswith(satellite)) for satellite in ("S1A", "S1B", "S2A")]
    write_store(tmp_path / "store", [(name, real.read_bytes(name)) for name in names])
    text = "\n".join(describe(tmp_path / "store"))
    assert "values    3 in" in text
    assert "metadata  none that fits" in text
    assert all(band in text for band in (*S1_BANDS, *S2_BANDS))
    assert Image.open(draw_tiles(tmp_path / "store", tmp_path / "three.png")).size[0] > 300


def test_an_archive_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["info", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in caplog.text


def test_the_other_commands_say_what_they_did(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_data / "bigearthnet_mm_v1_lmdb"
    assert main(["transcode", str(source), str(tmp_path / "out"), "--workers", "0"]) == 0
    assert "156 images transcoded, 0 were there already" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert "156 values read, 156 of them compared with their SHA-256; 0 broken" in capsys.readouterr().out
    assert main(["encode", str(source), str(tmp_path / "none")]) == 2
    assert "No tiles in" in caplog.text
    assert main(["encode", str(source), str(tmp_path / "none"), "--bands", "VV,VH"]) == 2
    assert "expected such as s1=VV,VH" in caplog.text
    write_store(tmp_path / "broken", [("tile", b"no tile")])
    assert main(["verify", str(tmp_path / "broken"), "--workers", "0"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("tile: ")
    assert "1 values read, no digests to compare with; 1 broken" in said
