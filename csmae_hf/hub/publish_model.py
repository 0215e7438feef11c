"""Publish a trained model: weights, processor, code, card, example picture and results in one commit."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from configuration_csmae import CSMAEConfig
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.identity import ArchiveMismatchError, Identity
from csmae_hf.embedding.provenance import Provenance
from csmae_hf.embedding.without_paths import HUB_NAME, without_paths
from csmae_hf.evaluation.benchmark import measured_benchmark
from csmae_hf.evaluation.submission import check_submission
from csmae_hf.hub.benchmarks import benchmark_entries, entries_text
from csmae_hf.hub.card import collection_card, model_card
from csmae_hf.hub.convert import REPORT_FILE
from csmae_hf.hub.example_picture import draw_example
from csmae_hf.hub.facts import RESULTS_FILE, read_facts
from csmae_hf.hub.onnx_files import ONNX_FOLDER, require_onnx, write_onnx_files
from csmae_hf.hub.upload import Pushed, upload_folder
from csmae_hf.sample.shipped import model_place
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEBackbone, CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

logger = logging.getLogger(__name__)

ALIGNMENT_FILE = "alignment.safetensors"
"""Beside results that were measured with an alignment of the sensors."""

PICTURE_FILE = "example.png"
"""The picture that the card shows."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS_OF_PNG = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")

MANAGED = (
    "*.safetensors",  # the alignment of the sensors too
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
        data: Tiles of which the example picture is drawn where there is none, and on which ONNX files are measured; default generated
            scenes.
        license: Hub identifier of the weights' licence, such as `mit`; default none is claimed.
        provider: Who made the model; default the owner of the repository.
        datasets: Hub names of the data sets it was trained on.
        onnx: Add ONNX files of the encoders, as of [`write_onnx_files`], with what they were measured to do.
        int8: The same, and each also in 8 bits.
        benchmark: Hub name of the benchmark that the results are an entry of, for `.eval_results`; default none are written.
        base_model: Hub name of the model that it was made from; default what its run or its own card says.
    """

    encoder_only: bool = False
    subfolder: str | None = None
    results: str | None = None
    picture: str | None = None
    data: str | None = None
    license: str | None = None
    provider: str | None = None
    datasets: tuple[str, ...] = ()
    onnx: bool = False
    int8: bool = False
    benchmark: str | None = None
    base_model: str | None = None


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
            managed=[*(prefix + pattern for pattern in MANAGED), benchmark_file(options.subfolder)],
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
    folder, root, options = Path(model_place(str(folder))), Path(out), options or PublishOptions()
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty: choose another folder, an empty or a new one.")
    place = root / (options.subfolder or "")
    if ".." in place.parts or (options.subfolder and Path(options.subfolder).is_absolute()):
        raise ValueError(
            f"subfolder = {options.subfolder!r} must be a relative path inside the repository, such as 'sesd'."
        )
    wants_onnx = options.onnx or options.int8
    if wants_onnx:
        require_onnx()
    model = load_whole(folder)
    processor = load_processor(folder, cast(CSMAEConfig, model.config))
    published = cast(PreTrainedModel, model.base_model) if options.encoder_only else model
    results = _find_results(folder, options)
    facts = facts_of(folder, published, processor, results, options)  # before anything is written
    entry = _entry_of(facts, options)
    place.mkdir(parents=True, exist_ok=True)
    if results is not None:
        _write_results(results, facts, place)
    if facts["synthetic"] is not None:
        published.config.trained_on_generated = facts["synthetic"]  # what is known goes with the weights from here
    published.save_pretrained(place)
    processor.save_pretrained(place)
    _write_config_without_paths(place / "config.json")
    for code in place.glob("*.py"):
        code.rename(root / code.name)  # Transformers looks for code at the repository's root only
    if facts["conversion"]:
        text = json.dumps(facts["conversion"], indent=2, ensure_ascii=False)
        (place / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if wants_onnx:
        files, tiles = write_onnx_files(published, processor, place, int8=options.int8, data=options.data)
        facts |= {"onnx": files, "onnx_tiles": tiles}
    if entry is not None:
        path = root / benchmark_file(options.subfolder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry, encoding="utf-8")
    shown = _copy_picture(folder, place, options, results)
    if shown is None:
        shown = draw_example(cast(PreTrainedModel, published.base_model), processor, place / PICTURE_FILE, options.data)
    picture = {} if shown is None else {"picture": PICTURE_FILE, "caption": shown}
    card = model_card(facts, repo_id, subfolder=options.subfolder, **picture)
    (place / "README.md").write_text(card, encoding="utf-8")
    if options.subfolder:
        (root / "README.md").write_text(collection_card(facts, repo_id), encoding="utf-8")
    return root


def card_of(folder: str | os.PathLike[str], repo_id: str, options: PublishOptions) -> str:
    """Write the card that a push would publish with a folder, with the picture that lies in it.

    Raises:
        FileNotFoundError: As of [`push_folder`].
        ValueError: As of [`push_folder`].
    """
    folder = Path(model_place(str(folder)))
    model = load_whole(folder)
    processor = load_processor(folder, cast(CSMAEConfig, model.config))
    facts = facts_of(folder, model, processor, _find_results(folder, options), options)
    picture = PICTURE_FILE if (folder / PICTURE_FILE).is_file() else None
    return model_card(facts, repo_id, subfolder=options.subfolder, picture=picture)


def facts_of(
    folder: Path,
    model: PreTrainedModel,
    processor: CSMAEImageProcessor,
    results: Path | None,
    options: PublishOptions,
) -> dict[str, Any]:
    """What the card of a model can say: what its folder says, as of [`read_facts`], and what its publisher does.

    Raises:
        ArchiveMismatchError: If the results are of another model, processor or alignment.
        ValueError: If a name is none of the Hub's, or a file of the folder is broken.
    """
    for option in ("base_model", "benchmark"):
        name = getattr(options, option)
        if name and not HUB_NAME.fullmatch(name):
            raise ValueError(
                f"{option}={name!r} is no name on the Hub: expected owner/name (--{option.replace('_', '-')})."
            )
    facts = read_facts(folder, model, processor, results=results)
    if results is not None:
        _check_results(results, facts, Identity.of(model, processor, str(folder)), named=bool(options.results))
    facts |= {"license": options.license, "provider": options.provider, "datasets": options.datasets}
    return facts | ({"base_model": options.base_model} if options.base_model else {})


def benchmark_file(subfolder: str | None) -> str:
    """Where the Hub looks for a model's results on a benchmark: at the root, also where the repository holds several models."""
    return f".eval_results/{(subfolder or 'retrieval').strip('/').replace('/', '-')}.yaml"


def _entry_of(facts: Mapping[str, Any], options: PublishOptions) -> str | None:
    """The text of `.eval_results`, where a benchmark is named; a ValueError where the results are no entry."""
    if not options.benchmark:
        return None
    results = facts["results"]
    if not results.get("directions"):
        raise ValueError(f"--benchmark {options.benchmark} needs results: name those of run_retrieval.py (--results).")
    benchmark = measured_benchmark(results)
    refusals = check_submission(results, benchmark)
    if refusals:
        raise ValueError(
            f"The results are no entry of a benchmark ({benchmark.name}): {refusals[0].text} Or leave out --benchmark."
        )
    return entries_text(benchmark_entries(results, benchmark, options.benchmark))


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


def _find_results(folder: Path, options: PublishOptions) -> Path | None:
    """The results that are named, or those in the folder; None where there are none."""
    source = Path(options.results) if options.results else folder / RESULTS_FILE
    if source.is_dir():
        source /= RESULTS_FILE
    if not source.is_file():
        if options.results:
            raise FileNotFoundError(f"No results at {source}: expected the results.json of run_retrieval.py.")
        return None
    return source


def _check_results(source: Path, facts: Mapping[str, Any], model: Identity, *, named: bool) -> None:
    """Refuse results that were measured with another model, processor or alignment than what is published.

    Those of a release that did not record it are refused where they are named; where they lie in the model's own folder, the card
    says that nobody knows.
    """
    again = f"measure this one: `run_retrieval.py {model.model} --data DATA --output_dir RESULTS`"
    if facts["provenance"] is not None:
        refuse_other_results(source, facts["provenance"], model, again)
    elif named:
        raise ArchiveMismatchError(
            f"{source} does not say which weights it was measured with, so that it may be of another model; expected what "
            f"run_retrieval.py of this release writes. To publish numbers, {again}."
        )
    else:
        logger.warning(
            "%s does not say which weights it was measured with; the card says so. To have it known, %s.", source, again
        )


def refuse_other_results(source: Path, provenance: Provenance, model: Identity, again: str) -> None:
    """Refuse results of another model or processor, or with another alignment beside them than they were measured with.

    Args:
        source: Their file.
        provenance: What they say of themselves.
        model: The model and processor that they are to be published with.
        again: How to measure that, for the message.

    Raises:
        ArchiveMismatchError: Naming what differs, both sides of it, and the remedy.
    """
    provenance.made_with.refuse_other(model, str(source), f"Publish the model that was measured, or {again}.")
    if provenance.alignment != "none":
        beside = source.with_name(ALIGNMENT_FILE)
        alignment = Alignment.load(beside) if beside.is_file() else None
        provenance.refuse_other_alignment(
            alignment, str(source), str(beside), f"Nobody gets these numbers without it. Put it there, or {again}."
        )


def _write_results(source: Path, facts: Mapping[str, Any], place: Path) -> None:
    """Put results beside the weights, without the paths of this machine, and the alignment that they were measured with."""
    if ((facts["results"].get("metadata") or {}).get("alignment") or {}).get("method", "none") != "none":
        alignment = source.with_name(ALIGNMENT_FILE)
        if alignment.is_file():
            Alignment.load(alignment).save(place / ALIGNMENT_FILE)  # and nothing else that its header may say
        else:
            logger.warning("There is no %s: nobody gets the numbers of %s without it.", alignment, source)
    text = json.dumps(facts["results"], indent=2, ensure_ascii=False)
    (place / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")


def _copy_picture(folder: Path, place: Path, options: PublishOptions, results: Path | None) -> str | None:
    """Put the example picture beside the weights, and say what it shows; None where there is none, or other tiles are to be shown."""
    if options.picture and not Path(options.picture).is_file():
        raise FileNotFoundError(f"No picture at {options.picture}.")
    if options.data and not options.picture:
        return None
    beside = sorted((results.parent if results else folder).glob("retrieval_*_to_*.png"))
    candidates = [Path(options.picture)] if options.picture else [folder / PICTURE_FILE, *beside]
    source = next((path for path in candidates if path.is_file()), None)
    if source is None:
        return None
    (place / PICTURE_FILE).write_bytes(png_without_texts(source))
    return "Queries and what was found for them."


def png_without_texts(path: Path) -> bytes:
    """Read a PNG without its texts and camera data, which may say where it was made and by whom. A ValueError for another file."""
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"{path} is no PNG: the example picture must be one.")
    kept, place = [_PNG], len(_PNG)
    while place < len(content):  # of a length, a kind, that many bytes and a checksum
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in _TEXTS_OF_PNG:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _write_config_without_paths(path: Path) -> None:
    """Names of classes, and whatever else somebody put into a configuration, may be paths of this machine."""
    held = json.loads(path.read_text(encoding="utf-8"))
    plain = without_paths(held)
    if plain != held:
        path.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")
