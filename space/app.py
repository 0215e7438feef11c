"""The explorer as a Hugging Face Space: on the generated sample, or on a published archive that CSMAE_ARCHIVE names."""

import logging
import os

from csmae_hf.app.opening import open_explorer, sample_explorer
from csmae_hf.app.serve import LOOPBACK, start

logging.basicConfig(level=logging.INFO, format="%(message)s")
archive = os.environ.get("CSMAE_ARCHIVE")
explorer = (
    open_explorer(archive, model=os.environ.get("CSMAE_MODEL"), data=os.environ.get("CSMAE_DATA"))
    if archive
    else sample_explorer()
)
# A Space runs in a container of its own, of which it shows this port; anywhere else only this machine is served.
start(explorer, host="0.0.0.0" if "SPACE_ID" in os.environ else LOOPBACK, port=int(os.environ.get("PORT", "7860")))
