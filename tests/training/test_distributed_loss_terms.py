"""Two processes, one of whose batches lacks a sensor: nobody waits in vain, and every term is the mean of what there was."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tiny_models import build, draw_images, tiny_config
from tiny_runs import free_port

from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.randomness import draw_flips_and_noise
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining

ROWS_WITHOUT_S2 = (2, 3)  # of four: what the second process gets


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    sensors = [name for name in ("s1", "s2") if all(name in row for row in rows)]
    return {name: torch.stack([row[name] for row in rows]) for name in sensors}


def train(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    config = tiny_config()
    images = draw_images(config, 4)
    rows = [{name: image[i] for name, image in images.items()} for i in range(4)]
    for row in ROWS_WITHOUT_S2:
        del rows[row]["s2"]
    arguments = CSMAETrainingArguments(
        output_dir=folder,
        max_steps=2,
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        logging_steps=1,
        eval_strategy="no",
        save_strategy="no",
        precision="fp32",
    )
    trainer = CSMAETrainer(
        model=build(CSMAEForPreTraining, config),
        args=arguments,
        train_dataset=rows,  # type: ignore[arg-type]
        data_collator=collate,  # type: ignore[arg-type]
        flips=False,
    )
    trainer.train()
    trainer.save_state()
    torch.distributed.barrier()  # nobody leaves while another still talks
    os._exit(
        0
    )  # what a Reducer's end waits for may wait for Python's lock, which it holds: torch would hang now and then


@pytest.mark.slow
def test_a_sensor_left_out_of_one_processs_batch(tmp_path: Path) -> None:
    mp.spawn(train, args=(str(tmp_path), free_port()), nprocs=2)
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    first, second = (entry for entry in history if "loss" in entry)

    config = tiny_config()
    model: Any = build(CSMAEForPreTraining, config).train()
    _, noise = draw_flips_and_noise(42, 0, 0, 4, config.sensors, config.num_patches)
    images = draw_images(config, 4)
    complete = model(**{n: i[:2] for n, i in images.items()}, noise={n: v[:2] for n, v in noise.items()}).losses
    lacking = model(s1=images["s1"][2:], noise={"s1": noise["s1"][2:]}).losses
    expected = {name: value.item() for name, value in complete.items()}
    expected["umr_s1"] = (complete["umr_s1"].item() + lacking["umr_s1"].item()) / 2
    assert {name: first[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert all(second[name] != first[name] for name in expected), "both processes went on"
