"""Before the first step: the guesses about a data set, and tiles that lack an image of a sensor."""

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from archives import make_dataset, make_processor
from tiny_runs import run_here

from configuration_csmae import CSMAEConfig
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training import pretrain
from csmae_hf.training import pretrain as pretrain_module
from csmae_hf.training.pretrain import look_at_tiles, mark_generated, tiles_with_all
from csmae_hf.training.trainer import CSMAETrainer


@pytest.mark.parametrize(
    ("name", "start_was", "expected"),
    [("BigEarthNet-x", None, True), ("tiles", None, False), ("tiles", True, True), ("tiles", False, False)],
)
def test_generated_scenes_are_written_into_the_configuration(
    tmp_path: Path, name: str, start_was: bool | None, expected: bool
) -> None:
    """By what lies in the folder and not by its name; what a model started from counts too."""
    (tmp_path / "tiles").mkdir()
    generate_sample(tmp_path / "BigEarthNet-x", tiles=5, seed=0)
    start = None
    if start_was is not None:
        start = str(tmp_path / "start")
        CSMAEConfig(trained_on_generated=start_was).save_pretrained(start)
    config = CSMAEConfig()
    mark_generated(config, str(tmp_path / name), start)
    config.save_pretrained(tmp_path / "saved")
    assert CSMAEConfig.from_pretrained(tmp_path / "saved").trained_on_generated is expected


def exchanged(row: dict[str, Any], place: int, share: float) -> dict[str, Any]:
    bands = row["s1"]
    wrong = int((place + 1) * share) > int(place * share)
    return {"s1": {"VH": bands["VV"], "VV": bands["VH"]} if wrong else bands}


def mixed(count: int, share: float) -> datasets.Dataset:
    return make_dataset(count).map(exchanged, with_indices=True, fn_kwargs={"share": share})


def test_a_mixed_data_set_is_refused_with_its_tiles(caplog: pytest.LogCaptureFixture) -> None:
    tiles, processor = mixed(20, 0.4), make_processor()
    with pytest.raises(
        ValueError, match=r"8 of 20 training tiles .*\n  8 \(.*are exchanged[\s\S]*--suspect accept[\s\S]*leave-out"
    ) as caught:
        look_at_tiles(tiles, processor, "refuse", "training")
    assert tiles["id"][2] in str(caught.value)
    with pytest.raises(ValueError, match="8 of 20 training tiles"):  # far more than 1 %
        look_at_tiles(tiles, processor, "leave-out", "training")
    with caplog.at_level(logging.INFO, logger="csmae_hf.training"):
        assert look_at_tiles(tiles, processor, "accept", "training") is tiles
        assert "Taken as they are: 8 of 20 training tiles" in caplog.text


def test_a_few_suspect_tiles_are_left_out_refused_or_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiles, processor = mixed(120, 1 / 120), make_processor()
    with caplog.at_level(logging.WARNING, logger="csmae_hf.training"):
        left = look_at_tiles(tiles, processor, "leave-out", "training")
        assert left["id"] == tiles["id"][:119]
        assert "Left out: 1 of 120 training tiles" in caplog.text
        assert look_at_tiles(left, processor, "refuse", "training") is left
        with pytest.raises(ValueError, match="1 of 120 training tiles"):
            look_at_tiles(tiles, processor, "refuse", "training")
        # where one of those that are looked at is suspect, all are looked at
        monkeypatch.setattr(pretrain, "TILES_LOOKED_AT", 100)
        first = tiles.select([119, *range(119)])
        assert len(look_at_tiles(first, processor, "leave-out", "training")) == 119


def test_a_certain_sign_is_refused_before_the_first_step() -> None:
    with pytest.raises(ValueError, match="values NaN or infinite"):
        look_at_tiles(make_dataset(10, broken=[4]), make_processor(), "accept", "training")


def without(tiles: datasets.Dataset, sensor: str, rows: set[int]) -> datasets.Dataset:
    feature = tiles.features[sensor]
    keys = [None if row in rows else key for row, key in enumerate(tiles.with_format("arrow")[:][sensor].to_pylist())]
    return tiles.remove_columns(sensor).add_column(sensor, keys, feature=feature)


@pytest.mark.slow
@pytest.mark.parametrize("native", ["true", "false"])
def test_tiles_that_lack_an_image_are_trained_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    load, seen = pretrain_module.load_split, []
    monkeypatch.setattr(
        pretrain_module, "load_split", lambda *args: without(without(load(*args), "s1", {0, 1, 5}), "s2", {3})
    )
    compute = CSMAETrainer.compute_loss

    def watch(self: CSMAETrainer, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        seen.append({sensor: flags.clone() for sensor, flags in inputs["present"].items()})
        return compute(self, model, inputs, *args, **options)

    monkeypatch.setattr(CSMAETrainer, "compute_loss", watch)
    more = ("--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3", "--on_device_preprocessing", native)
    log = run_here(data, tmp_path, *more)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert any("eval_loss" in entry for entry in log)
    absent = {sensor: sum(int((~one[sensor]).sum()) for one in seen[:6]) for sensor in ("s1", "s2")}
    assert absent["s1"] >= 3
    assert torch.stack([one["s1"] | one["s2"] for one in seen if len(one["s1"]) == 4]).all()


def test_tiles_with_all_images_are_told_apart(data: Path) -> None:
    tiles = pretrain_module.load_data_or_sample(data, "train")
    assert tiles_with_all(tiles, ["s1", "s2"]) is tiles
    fewer = without(without(tiles, "s1", {0, 4}), "s2", {4, 6}).select(range(1, 10))
    assert tiles_with_all(fewer, ["s1", "s2"])["id"] == [tiles["id"][row] for row in (1, 2, 3, 5, 7, 8, 9)]
