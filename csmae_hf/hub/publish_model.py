"""Publish a trained model: weights, processor, code, card, example picture and results in one commit."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from configuration_csmae import CSMAEConfig
from csmae_hf.hub.card import collection_card, model_card
from csmae_hf.hub.convert import REPORT_FILE
from csmae_hf.hub.facts import RESULTS_FILE, read_facts, without_paths
from csmae_hf.hub.onnx_files import ONNX_FOLDER, require_onnx, write_onnx_files
from csmae_hf.hub.upload import Pushed, upload_folder
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEBackbone, CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

PICTURE_FILE = "example.png"
"""The picture that the card shows."""

MANAGED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
    "README.md",
    PICTURE_FILE,
    RESULTS_FILE,
    REPORT_FILE,
    f"{ONNX_FOLDER}/*.onnx",
)
"""Files a push is in charge of: those that the pushed folder no longer has are deleted from the repository."""

_CLASSES: dict[str, type[PreTrainedModel]] = {
    one.__name__: one for one in (CSMAEForPreTraining, CSMAEModel, CSMAEForImageClassification, CSMAEBackbone)
}


@dataclass(frozen=True)
class PublishOptions:
    """What is published, and how.

    Attributes:
        encoder_only: Leave out decoders and heads: what retrieval needs.
        subfolder: Folder of the repository for this model, where it is to hold several; its code lies at the root all the same.
        results: `results.json` of an evaluation; default the one in the folder.
        picture: Example picture; default the folder's `example.png`, then one beside the results.
        license: Hub identifier of the weights' licence, such as `mit`; default none is claimed.
        datasets: Hub names of the data sets it was trained on.
        onnx: Add ONNX files of the encoders, as of [`write_onnx_files`], with what they were measured to do.
        int8: The same, and each also in 8 bits.
        data: Tiles to measure the ONNX files on; default generated ones.
    """

    encoder_only: bool = False
    subfolder: str | None = None
    results: str | None = None
    picture: str | None = None
    license: str | None = None
    datasets: tuple[str, ...] = ()
    onnx: bool = False
    int8: bool = False
    data: str | None = None


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    options: PublishOptions | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Publish a `from_pretrained` folder of a CSMAE model.

    Args:
        folder: The folder: of `run_pretraining.py`, of `csmae convert`, or of `save_pretrained`.
        repo_id: `owner/name`, or the name alone for the token's owner.
        options: What is published.
        private: Whether a new repository is private; None is private.
        token: Token; default the one of `hf auth login` or HF_TOKEN.
        revision: Branch to push to, made where it does not exist; default `main`.
        commit_message: Headline of the commit.

    Returns:
        Where it is now, and the commit to pin.

    Raises:
        FileNotFoundError: If the folder holds no model, or a file that was named is not there.
        ImportError: If ONNX files are asked for and a package that makes them is not installed.
        ValueError: If it is not one of CSMAE, not whole, or does not fit its processor.
        PublishError: If the Hub refuses or does not answer; a repeated push ends in the same state.
    """
    options = options or PublishOptions()
    with tempfile.TemporaryDirectory(prefix="csmae-push-") as staging:
        stage_model(folder, staging, repo_id, options)
        prefix = f"{options.subfolder}/" if options.subfolder else ""
        what = "encoder" if options.encoder_only else "model"
        return upload_folder(
            staging,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message or f"Upload CSMAE {what}{f' to {options.subfolder}' if prefix else ''}",
            managed=[prefix + pattern for pattern in MANAGED],
        )


def stage_model(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], repo_id: str, options: PublishOptions | None = None
) -> Path:
    """Lay out the files of a repository in an empty folder, without any network.

    The same folder and options give the same bytes, so that a repeated push changes nothing.

    Args:
        folder: As of [`push_folder`].
        out: Where to put them; made if it is not there.
        repo_id: Name the card shows.
        options: What is published.

    Returns:
        The folder of the files.

    Raises:
        FileExistsError: If `out` is not empty.
        FileNotFoundError: As of [`push_folder`].
        ValueError: As of [`push_folder`].
    """
    folder, root, options = Path(folder), Path(out), options or PublishOptions()
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty: name an empty or a new folder.")
    place = root / (options.subfolder or "")
    if ".." in place.parts or (options.subfolder and Path(options.subfolder).is_absolute()):
        raise ValueError(
            f"subfolder = {options.subfolder!r} must be a relative path inside the repository, such as 'sesd'."
        )
    wants_onnx = options.onnx or options.int8
    if wants_onnx:
        require_onnx()
    elif options.data:
        raise ValueError(
            "data (--data) are the tiles that ONNX files are measured on: ask for them too, onnx=True (--onnx)."
        )
    model = load_whole(folder)
    processor = load_processor(folder, cast(CSMAEConfig, model.config))
    published = cast(PreTrainedModel, model.base_model) if options.encoder_only else model
    published.save_pretrained(place)
    processor.save_pretrained(place)
    for code in place.glob("*.py"):
        code.rename(root / code.name)  # Transformers looks for code at the repository's root only
    results = _copy_results(folder, place, options)
    if (folder / REPORT_FILE).is_file():
        shutil.copyfile(folder / REPORT_FILE, place / REPORT_FILE)
    has_picture = _copy_picture(folder, place, options, results)
    facts = read_facts(folder, published, processor, results=results)
    facts |= {"license": options.license, "datasets": options.datasets}
    if wants_onnx:
        files, tiles = write_onnx_files(published, processor, place, int8=options.int8, data=options.data)
        facts |= {"onnx": files, "onnx_tiles": tiles}
    card = model_card(facts, repo_id, subfolder=options.subfolder, picture=PICTURE_FILE if has_picture else None)
    (place / "README.md").write_text(card, encoding="utf-8")
    if options.subfolder:
        (root / "README.md").write_text(collection_card(facts, repo_id), encoding="utf-8")
    return root


def load_whole(folder: Path) -> PreTrainedModel:
    """Load a model, in the types of its weights; refuse one that is not of CSMAE, is pickled, lacks weights, or has broken ones."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"No model at {folder}: expected a folder with config.json and model.safetensors, such as the --output_dir of "
            "run_pretraining.py."
        )
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = content.get("architectures") or ["?"]
    if content.get("model_type") != CSMAEConfig.model_type or names[0] not in _CLASSES:
        raise ValueError(
            f"{folder} holds a {content.get('model_type')} model of class {names[0]}: expected one of {', '.join(_CLASSES)}."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        hint = f" It has {', '.join(pickles)}: pickles are never published." if pickles else ""
        raise FileNotFoundError(f"{folder} has no *.safetensors.{hint} Load the model and save_pretrained it.")
    loaded: Any = _CLASSES[names[0]].from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, loading = loaded
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        raise ValueError(f"{folder} lacks weights, nothing was pushed: {', '.join(absent[:5])} ({len(absent)} in all).")
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{folder} has NaN or infinite weights, nothing was pushed: {', '.join(broken[:5])} ({len(broken)} in all)."
        )
    return model.eval()


def load_processor(folder: Path, config: CSMAEConfig) -> CSMAEImageProcessor:
    """Load the processor of a folder, and refuse one that is not there or does not fit the model."""
    if not (folder / "preprocessor_config.json").is_file():
        raise ValueError(
            f"{folder} has no preprocessor_config.json: without it nobody knows what the model takes. "
            "Save one beside the weights: CSMAEImageProcessor(sensors=config.sensors, size=config.image_size)."
            f"save_pretrained({str(folder)!r})."
        )
    processor = CSMAEImageProcessor.from_pretrained(folder)
    compared = {"sensors": (processor.sensors, config.sensors), "size": (processor.size, config.image_size)}
    for name, (ours, theirs) in compared.items():
        if ours != theirs:
            raise ValueError(
                f"{folder}: the processor's {name} is {ours}, the model's {theirs}; they must be the same."
            )
    return processor


def _copy_results(folder: Path, place: Path, options: PublishOptions) -> Path | None:
    """Put the results beside the weights, without the paths of this machine; return where they were found."""
    source = Path(options.results) if options.results else folder / RESULTS_FILE
    if not source.is_file():
        if options.results:
            raise FileNotFoundError(f"No results at {source}: expected the results.json of run_retrieval.py.")
        return None
    content = without_paths(json.loads(source.read_text(encoding="utf-8")))
    (place / RESULTS_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return source


def _copy_picture(folder: Path, place: Path, options: PublishOptions, results: Path | None) -> bool:
    if options.picture and not Path(options.picture).is_file():
        raise FileNotFoundError(f"No picture at {options.picture}.")
    beside = sorted((results.parent if results else folder).glob("retrieval_*_to_*.png"))
    candidates = [Path(options.picture)] if options.picture else [folder / PICTURE_FILE, *beside]
    source = next((path for path in candidates if path.is_file()), None)
    if source is None:
        return False
    if not source.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{source} is no PNG: the example picture must be one.")
    shutil.copyfile(source, place / PICTURE_FILE)
    return True
