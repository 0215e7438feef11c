"""Pre-train a cross-sensor masked autoencoder (CSMAE) on paired Sentinel-1 and Sentinel-2 tiles.

    python run_pretraining.py configs/demo.yaml
    accelerate launch run_pretraining.py configs/csmae_sesd.yaml --data BigEarthNet --output_dir runs/sesd
    accelerate launch --multi_gpu --num_processes 2 run_pretraining.py configs/demo.yaml     two processes, on CPUs too

The first argument may be a YAML file of arguments; options override it. The trained model, its processor and its code are
saved in --output_dir, ready for AutoModel.from_pretrained.
"""

import logging
import sys
from collections.abc import Sequence

import csmae_doctor  # it imports nothing heavy: an interrupt of the imports is answered, too


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    ending = csmae_doctor.load_commands("ending")
    ending.log_to_terminal(logging.INFO)
    return int(ending.run_to_end("run_pretraining.py", run, argv))


def run(words: list[str]) -> None:
    """Train as the command line says."""
    from accelerate import PartialState

    from csmae_hf.hub.upload import quiet_http
    from csmae_hf.training.arguments import parse_arguments
    from csmae_hf.training.pretrain import pretrain

    quiet_http()
    folder = pretrain(*parse_arguments(words, description=__doc__))
    state = PartialState()
    if state.is_main_process:
        sys.stdout.write(f"Trained model, processor and code: {folder}\n")
    state.wait_for_everyone()  # nobody leaves while another still counts on it
    state.destroy_process_group()  # else its threads may still run when the process ends, which aborts it


if __name__ == "__main__":
    sys.exit(main())
