"""What `csmae info FOLDER` says of image files: of real ones of other people, and of six mistakes in one folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiff_files import random_band, write_tiff

from csmae_hf.bigearthnet import S1_BANDS, S2_BANDS
from csmae_hf.commands.main import main
from csmae_hf.data.inspect import Inspection, format_inspection, inspect_images
from csmae_hf.data.tiles import load_tiles

pytest.importorskip("rasterio")

EUROSAT = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]


def verdicts(found: Inspection) -> dict[str, tuple[str, str]]:
    return {report.file: (report.verdict, " ".join(report.reasons)) for report in found.files}


# By folder of public_files: a file, what must be known of it, its verdict, and words of the reason.
REAL: dict[str, list[tuple[str, dict[str, Any], str, str]]] = {
    "landsat8_not_sentinel": [("l8_B2.tif", {"platform": "Landsat", "metres": 30}, "refused", "of Landsat")],
    "earth_search_item": [
        (
            "S2A_29RKH_20200219_0_L2A/B02.tif",
            {"bands": ["B02"], "metres": 100, "level": "L2A", "platform": "S2A", "date": "2020-02-19T00:00:00"},
            "refused",
            "are 600 x 600 m",
        ),
        ("S2A_29RKH_20200219_0_L2A/SCL.tif", {}, "left out", "no band (scl)"),
    ],
    "s1_grd_dn": [("iw-vv.tiff", {"sensor": "s1", "bands": ["VV"]}, "refused", "holds amplitude")],
    "eurosat_ms_small": [("Forest/Forest_1.tif", {"size": (64, 64)}, "refused", "nor its 13 layers")],
    "gee_time_series": [
        (
            "98-togo_2019-02-06_2020-02-01.tif",
            {"sensor": "s2", "images": 12, "date": "2019-02-06T00:00:00", "level": "L1C"},
            "refused",
            "Level-1C",
        )
    ],
    "sentinelhub_export": [
        ("Boadella_2020-01-13.tif", {"date": "2020-01-13T00:00:00"}, "refused", "nor its 12 layers"),
        ("s2_roads.tiff", {"sensor": "s2"}, "refused", "does not name its 12 bands"),
    ],
    "jp2": [
        ("s2_B05.jp2", {"sensor": "s2", "bands": ["B05"], "metres": 20}, "refused", "expected 20 x 20 or 120 x 120"),
        ("T55XEE_20200911T034541_B08.jp2", {"size": (10980, 10980)}, "refused", "a scene, not a tile"),
    ],
    "openeo": [
        ("S2-bands.tiff", {"sensor": "s2"}, "refused", "does not name its 6 bands"),
        ("icor/ref_input_S2_sunZenithAngles.tif", {}, "left out", "no band"),
    ],
    "pyrosar_db": [
        (
            "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif",
            {"sensor": "s1", "bands": ["VV"], "platform": "S1A", "metres": 20},
            "refused",
            "20 x 20 m",
        )
    ],
    "s1_rtc_linear": [],
    "terramesh_S2L1C": [("38D_378R_2_3.tif", {"level": "L1C"}, "refused", "does not name its 13 bands")],
    "ftw": [("inference-img.tif", {}, "refused", "nor its 8 layers")],
    "worldcereal": [],
}


@pytest.mark.parametrize("folder", sorted(REAL))
def test_real_files_of_other_people_are_named_for_what_they_are(shared_data: Path, folder: str) -> None:
    found = inspect_images(shared_data / "public_files" / folder, limit=20)
    by_file = {report.file: report for report in reversed(found.files)}
    for file, facts, verdict, words in REAL[folder]:
        report = next(
            (one for one in found.files if (one.file, one.sensor) == (file, facts.get("sensor"))), by_file[file]
        )
        said = {name: getattr(report, name) for name in facts}
        assert said == (facts if "images" not in facts else {**facts, "images": said["images"]})
        assert said.get("images", 2) > 1
        assert report.verdict == verdict
        assert words in " ".join(report.reasons)
    text = list(format_inspection(found))
    assert all(len(line) <= 120 for line in text[: min(len(found.files), 40) + 1])
    assert json.loads(json.dumps(found.as_dict()))["files"] or folder == "worldcereal"
    assert not found.is_good


def test_no_public_folder_is_untested(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "public_files").iterdir() if path.is_dir()} == set(REAL)


def test_the_remedies_lead_on_to_the_next_mistake(shared_data: Path) -> None:
    folder = shared_data / "public_files" / "eurosat_ms_small"
    named = verdicts(inspect_images(folder, bands={"s2": EUROSAT}))["Forest/Forest_1.tif"]
    assert "Level-1C" in named[1]
    assert "--level L1C" in named[1]
    taken = verdicts(inspect_images(folder, bands={"s2": EUROSAT}, level="L1C"))["Forest/Forest_1.tif"]
    assert "Level-1C" not in taken[1]
    assert "64 x 64 pixels" in taken[1]


def test_a_netcdf_is_said_to_be_not_read(shared_data: Path) -> None:
    found = inspect_images(shared_data / "public_files" / "worldcereal")
    assert found.others == {".nc": 3}
    assert "3 .nc" in "\n".join(format_inspection(found))


@pytest.fixture
def mistakes(shared_data: Path, tmp_path: Path) -> Path:
    """Two good pairs of real tiles, and six mistakes."""
    real = load_tiles(shared_data / "rico_hdl_reben_tiffs")
    images = {sensor: next(row[sensor] for row in real if row[sensor] is not None) for sensor in ("s1", "s2")}
    folder = tmp_path / "mine"
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        for bands in images.values():
            for band, pixels in bands.items():
                write_tiff(folder / f"{name}/{name}_{band}.tif", [np.asarray(pixels)])
    linear = {band: (10 ** (np.asarray(images["s1"][band]) / 10)).astype(np.float32) for band in S1_BANDS}
    for band, pixels in linear.items():
        write_tiff(folder / f"c/c_{band}.tif", [pixels])  # 1: linear power
    (folder / "d/d_B11.tif").unlink()  # 2: a band is missing
    (folder / "e/e_B03.tif").write_bytes(b"no image")  # 3: damaged
    write_tiff(folder / "f/f_B02.tif", [random_band("B02")[:100, :100]])  # 4: of another size (and so of other pixels)
    shutil.copy(folder / "g/g_B04.tif", folder / "g/g_B4.tif")  # 5: twice
    write_tiff(folder / "LC08_L1TP_199026_20200101_B2.tif", [random_band("B02")])  # 6: Landsat
    return folder


def test_six_mistakes_in_one_folder_are_reported_at_once(
    mistakes: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["info", str(mistakes), "--format", "json"]) == 1
    said = json.loads(capsys.readouterr().out)
    files = {report["file"]: report for report in said["files"]}
    for file, words in {
        "c/c_VV.tif": "--units s1=linear",
        "d/d_B02.tif": "lacks B11",
        "e/e_B03.tif": "neither a TIFF nor a JPEG 2000",
        "f/f_B02.tif": "f_B02.tif: the pixels of B02 are 12 x 12 m",
        "g/g_B4.tif": "more than one file for the band B04",
        "LC08_L1TP_199026_20200101_B2.tif": "of Landsat",
    }.items():
        assert files[file]["verdict"] == "refused", file
        assert words in " ".join(files[file]["reasons"]), file
    good = [file for file, report in files.items() if report["verdict"] == "ok"]
    assert {file[0] for file in good} >= {"a", "b", "d"}  # d: its S1
    assert files["a/a_B02.tif"]["unit"] == "dn"
    assert files["a/a_VV.tif"]["unit"] == "db"
    assert files["a/a_B05.tif"]["metres"] == 20
    assert {"a", "b"} <= set(said["tiles"])
    assert set(said["tiles"]["a"]) == {"s1", "s2"}


def test_what_the_table_tells_to_type_works(mistakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("d", "e", "f", "g"):
        shutil.rmtree(mistakes / name)
    (mistakes / "LC08_L1TP_199026_20200101_B2.tif").unlink()
    for name in ("a", "b"):
        for band in S1_BANDS:
            (mistakes / f"{name}/{name}_{band}.tif").unlink()
    assert main(["info", str(mistakes)]) == 1
    assert "(--units s1=linear)" in capsys.readouterr().out
    assert main(["info", str(mistakes), "--units", "s1=linear"]) == 0
    said = capsys.readouterr().out
    assert "linear (you)" in said
    assert "refused" not in said


def test_a_single_file_a_table_and_a_good_folder_are_told(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "bigearthnet_v1_tiff_examples"
    whole = inspect_images(folder)
    assert set(whole.counts) <= {"ok", "left out"}, verdicts(whole)
    assert whole.is_good
    one = next(report for report in whole.files if report.sensor == "s2")
    assert (one.date or "")[:4] == "2017" or one.date is not None
    assert one.platform in ("S2A", "S2B")
    single = inspect_images(folder / one.file)
    assert len(single.files) == len(S2_BANDS)  # its image has a file a band
    table = tmp_path / "pairs.csv"
    table.write_text(f"id,s2\nhere,{(folder / one.file).parent}\nnowhere,{tmp_path / 'gone.tif'}\n")
    found = inspect_images(table)
    assert found.counts == {"refused": 1, "ok": len(S2_BANDS)}
    assert "is not there" in " ".join(reason for report in found.files for reason in report.reasons)


def test_many_files_are_cut_to_forty_rows_with_the_worst_first(tmp_path: Path) -> None:
    for number in range(50):
        write_tiff(tmp_path / f"t{number:02d}_VV.tif", [random_band("VV", number)])
    write_tiff(tmp_path / "t99_VV.tif", [random_band("VV").astype(np.float32) * 0 + np.nan])
    found = inspect_images(tmp_path)
    lines = list(format_inspection(found))
    assert "t99_VV.tif" in lines[1]
    assert "refused" in lines[1]
    assert "... and 11 more: 11 ok (--format json lists all)" in lines[41]
    assert len(found.as_dict()["files"]) == 51
    few = inspect_images(tmp_path, limit=10)
    assert (few.looked_at, few.images) == (10, 51)
    assert "10 of 51" in "\n".join(format_inspection(few))


def test_what_is_done_with_suspect_images_is_said(tmp_path: Path) -> None:
    bands = {band: random_band(band) for band in S1_BANDS}
    write_tiff(tmp_path / "a_VV.tif", [bands["VV"] - 9])
    write_tiff(tmp_path / "a_VH.tif", [bands["VH"]])
    for suspect, verdict in (("refuse", "suspect"), ("leave-out", "suspect"), ("accept", "ok")):
        found = inspect_images(tmp_path, suspect=suspect)
        assert found.counts == {verdict: 2}
        assert found.is_good == (suspect == "accept")


def test_the_remedy_of_each_sensor_is_said(shared_data: Path) -> None:
    text = "\n".join(format_inspection(inspect_images(shared_data / "terramind_examples")))
    assert "--bands s1=NAME" in text
    assert "--bands s2=NAME" in text
    assert "282D_485L_3_3: S1RTC/282D_485L_3_3 + S2L2A/282D_485L_3_3" in text


def test_nothing_to_look_at_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["info", str(tmp_path)]) == 2
    assert "holds no LMDB and no image files" in caplog.text
    (tmp_path / "notes.txt").write_text("")
    assert main(["info", str(tmp_path / "notes.txt")]) == 2
    assert "neither a table" in caplog.text
    assert main(["info", str(tmp_path), "--units", "dn+1000"]) == 2
    assert "--units dn+1000: expected such as s2=dn+1000" in caplog.text
