"""Pre-train a cross-sensor masked autoencoder (CSMAE) on paired Sentinel-1 and Sentinel-2 tiles.

    python run_pretraining.py configs/demo.yaml
    accelerate launch run_pretraining.py configs/csmae_sesd.yaml --data BigEarthNet --output_dir runs/sesd
    accelerate launch --multi_gpu --num_processes 2 run_pretraining.py configs/demo.yaml     two processes, on CPUs too

The first argument may be a YAML file of arguments; options override it. The trained model, its processor and its code are
saved in --output_dir, ready for AutoModel.from_pretrained.
"""

import logging
import signal
import sys

from accelerate import PartialState

from csmae_hf.hub.upload import quiet_http
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.errors import InterruptedRunError, TrainingError
from csmae_hf.training.pretrain import pretrain


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet_http()
    try:
        folder = pretrain(*parse_arguments(sys.argv[1:], description=__doc__))
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        logging.error("run_pretraining.py: %s", error)
        return 2
    except InterruptedRunError as error:
        logging.error("run_pretraining.py: %s", error)
        return 128 + signal.SIGTERM
    except TrainingError as error:
        logging.error("run_pretraining.py: %s", error)
        return 1
    logging.info("Trained model, processor and code: %s", folder)
    state = PartialState()
    state.wait_for_everyone()  # nobody leaves while another still counts on it
    state.destroy_process_group()  # else its threads may still run when the process ends, which aborts it
    return 0


if __name__ == "__main__":
    sys.exit(main())
