"""Negatives of all processes: two real processes against one that holds the whole batch."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_models import THREE_SENSORS, build, draw_images, draw_noise, tiny_config
from torch.nn.parallel import DistributedDataParallel

from modeling_csmae import CSMAEForPreTraining, gather_rows

CASES: dict[str, dict[str, Any]] = {
    "even": {"shares": [4, 4]},
    "uneven": {"shares": [5, 3]},
    "common encoder, three sensors": {"shares": [2, 2], "variant": "cecd", "sensors": THREE_SENSORS},
    "single samples": {"shares": [1, 1]},
    "samples missing": {"shares": [4, 4], "absent": {"s1": [0, 1, 2, 6]}},
    "none left in one process": {"shares": [3, 3], "absent": {"s2": [0, 1, 2]}},
}


def make_model(case: dict[str, Any], **overrides: Any) -> Any:
    """Only NT-Xent is trained: the means of the other terms over uneven batches are Trainer's business, not ours."""
    fields = {"umr_weight": 0.0, "cmr_weight": 0.0, **overrides}
    if "sensors" in case:
        fields["sensors"] = case["sensors"]
    return build(CSMAEForPreTraining, tiny_config(case.get("variant", "sesd"), **fields)).train()


def make_batch(case: dict[str, Any], config: Any) -> dict[str, Any]:
    total = sum(case["shares"])
    present = {sensor: torch.ones(total, dtype=torch.bool) for sensor in config.sensors}
    for sensor, rows in case.get("absent", {}).items():
        present[sensor][rows] = False
    batch = {**draw_images(config, total), "noise": draw_noise(config, total)}
    return {**batch, "present": present} if "absent" in case else batch


def share(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, dict):
        return {name: share(value, start, stop) for name, value in batch.items()}
    return batch[start:stop]


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for name, case in CASES.items():
        model = make_model(case)
        starts = [0, case["shares"][0], sum(case["shares"])]
        batch = share(make_batch(case, model.config), starts[rank], starts[rank + 1])
        parallel = DistributedDataParallel(model)  # kept until the gradients are averaged
        outputs = parallel(**batch)
        outputs.loss.backward()
        gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        results[name] = {"loss": outputs.loss.detach(), "gradients": gradients}
    case = CASES["even"]
    batch = share(make_batch(case, tiny_config()), 4 * rank, 4 * rank + 4)
    results["off"] = make_model(case, mim_gather=False)(**batch).loss.detach()
    if rank == 0:  # alone: would wait forever if it gathered
        results["evaluation"] = make_model(case).eval()(**batch).loss.detach()
    dist.barrier()
    if rank == 1:
        del batch["s2"]
    results["one sensor"] = make_model(case, umr_weight=1.0)(**batch, return_loss=True).losses
    results["gathered"] = gather_rows(torch.full((rank + 1, 2), float(rank)))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()  # nobody leaves while another still talks
    os._exit(
        0
    )  # what a Reducer's end waits for may wait for Python's lock, which it holds: torch would hang now and then


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(run_process, args=(str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_one_process_with_the_whole_batch(processes: list[dict[str, Any]], name: str) -> None:
    model = make_model(CASES[name])
    outputs = model(**make_batch(CASES[name], model.config))
    outputs.loss.backward()
    for found in processes:
        torch.testing.assert_close(found[name]["loss"], outputs.loss.detach())
    expected = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for key, gradient in expected.items():
        for found in processes:
            torch.testing.assert_close(found[name]["gradients"][key], gradient, atol=1e-6, rtol=1e-4)


def test_gathering_can_be_switched_off(processes: list[dict[str, Any]]) -> None:
    model = make_model(CASES["even"])
    batch = make_batch(CASES["even"], model.config)
    for rank, found in enumerate(processes):
        torch.testing.assert_close(found["off"], model(**share(batch, 4 * rank, 4 * rank + 4)).loss.detach())
    assert processes[0]["off"] != processes[1]["off"]


def test_evaluation_waits_for_nobody(processes: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(processes[0]["evaluation"], processes[0]["off"])


def test_process_whose_batch_lacks_a_sensor_blocks_nobody(processes: list[dict[str, Any]]) -> None:
    model = make_model(CASES["even"], umr_weight=1.0)
    alone = model(**share(make_batch(CASES["even"], model.config), 0, 4))
    for found in processes:
        torch.testing.assert_close(found["one sensor"]["mim"].detach(), alone.losses["mim"].detach())


def test_rows_come_in_the_order_of_the_processes(processes: list[dict[str, Any]]) -> None:
    for found in processes:
        assert found["gathered"].tolist() == [[0, 0], [1, 1], [1, 1]]
