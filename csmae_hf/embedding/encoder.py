"""An encoder with its processor, loaded by name."""

from typing import Any

from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

import csmae_hf  # noqa: F401 (registers the Auto classes)
from csmae_hf.sample.shipped import TINY_NAME, model_place


def load_encoder(
    name: str, revision: str | None = None, *, trust_remote_code: bool = False, **options: Any
) -> tuple[PreTrainedModel, Any]:
    """Load an encoder and its processor.

    Args:
        name: Folder or Hub name, or `csmae-tiny-generated`, which comes with the package.
        revision: Branch, tag or commit of the Hub repository; default its newest.
        trust_remote_code: Whether to run the code that a model of another kind than this package's brings along. Nobody is asked.
        **options: As of `from_pretrained`, for both: `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder`.

    Returns:
        Both.

    Raises:
        FileNotFoundError: If there is no such folder, and no such name in the cache or on the Hub.
        ValueError: If it brings code that may not run, or lacks weights of its encoder, which would be random.
    """
    options |= {"trust_remote_code": trust_remote_code} | ({"revision": revision} if revision else {})
    place = model_place(name)
    # where peft is installed, the Auto class first looks for an adapter, on the Hub, whatever it is told for the model
    where = {key: options[key] for key in ("cache_dir", "local_files_only") if key in options}
    try:
        model, report = AutoModel.from_pretrained(place, adapter_kwargs=where, output_loading_info=True, **options)
        if absent := sorted(report["missing_keys"]):
            raise ValueError(
                f"{name} lacks {len(absent)} weights of {type(model).__name__}, {absent[0]} for one, which would be random: its "
                "config.json is of another model than its weights, or they are not whole."
            )
        return model, AutoImageProcessor.from_pretrained(place, **options)
    except RuntimeError as error:  # Transformers' word for shapes that do not fit
        raise ValueError(
            f"{name} has weights that do not fit its config.json ({str(error).splitlines()[0]}): give it the configuration that they "
            "were trained with."
        ) from error
    except OSError as error:
        raise FileNotFoundError(
            f"No model at {name}: train one with run_pretraining.py, or name a folder or Hub id, or {TINY_NAME}, which "
            f"comes with the package. ({error})"
        ) from error
    except ValueError as error:
        if trust_remote_code or "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name} brings code of its own, which would run on this machine. Read it, and pass --trust_remote_code "
            "(in Python trust_remote_code=True) if you trust it."
        ) from error
