"""How long the explorer's page takes on an archive of 10,000 tiles: the first page, and a query from click to results, in Chromium.

python -m benchmarks.explorer MODEL DATA [--tiles 10000]

The tiles of DATA are repeated until there are enough, under other ids and with noise on their embeds: what costs time is their
number. It needs the extras `app` and `geo`, Playwright, and Debian's Chromium.
"""

import argparse
import logging
import shutil
import statistics
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.serve import start
from csmae_hf.archive.archive import Archive
from csmae_hf.data.load import ALL_TILES, load_data
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.identity import Identity

logger = logging.getLogger(__name__)

QUERIES = 12
ASK = """async (place) => {
  const started = performance.now();
  const button = document.querySelectorAll('#examples button')[place];
  const tile = button.dataset.tile;
  button.click();
  while (document.querySelector('#query .id')?.textContent !== tile || !document.querySelector('#gallery .card'))
    await new Promise(requestAnimationFrame);
  return performance.now() - started;
}"""


def make_explorer(model_name: str, data: str, tiles: int) -> Explorer:
    """An archive of so many tiles."""
    model, processor = load_encoder(model_name)
    dataset = load_data(data, ALL_TILES)
    small = Archive.build(model, processor, dataset)
    rows = np.arange(tiles) % len(small)
    names = small.ids
    ids = [names[row] if place < len(small) else f"copy{place}_{names[row]}" for place, row in enumerate(rows)]
    rng = np.random.default_rng(0)
    embeds = {
        sensor: part[torch.from_numpy(rows)].numpy() + rng.normal(0, 0.05, (tiles, small.width)).astype(np.float32)
        for sensor, part in small.vectors.items()
    }
    table = small.tiles.take(pa.array(rows)).set_column(0, "id", pa.array(ids))
    identity = Identity.of(model, processor, model_name)
    archive = Archive.from_embeds(embeds, table, identity, model=model, processor=processor)
    large = dataset.select(rows.tolist()).remove_columns("id").add_column("id", ids)
    return Explorer(archive, large)


def measure(address: str) -> tuple[list[float], list[float]]:
    """Seconds of first pages, and milliseconds of queries."""
    from playwright.sync_api import sync_playwright

    first: list[float] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page: Any = browser.new_page(viewport={"width": 1600, "height": 1000})
        for _ in range(3):
            begun = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#examples button img")
            first.append(time.perf_counter() - begun)
        queries = []
        for place in range(QUERIES):
            queries.append(page.evaluate(ASK, place))
            page.wait_for_timeout(500)
        browser.close()
    return first, queries


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description="Time the explorer's page.")
    parser.add_argument("model", help="folder or Hub name of a model")
    parser.add_argument("data", help="tiles to repeat")
    parser.add_argument("--tiles", type=int, default=10_000, help="tiles of the archive (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    explorer = make_explorer(arguments.model, arguments.data, arguments.tiles)
    page, address = start(explorer, block=False)
    time.sleep(3)  # until what is done once, in the background, is done
    first, queries = measure(address)
    logger.info("first page: %s s", ", ".join(f"{value:.2f}" for value in first))
    logger.info("query, click to results: median %.0f ms, most %.0f ms", statistics.median(queries), max(queries))
    page.blocks.close()


if __name__ == "__main__":
    main()
