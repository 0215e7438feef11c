"""`--push_to_hub`: the push of a run, made by `csmae_hf.hub.publish_model` at its end and not by the Trainer.

The Trainer would publish its arguments as a pickle, with the token in it if one was given, and a card of empty fields.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from csmae_hf.hub.publish_model import push_folder
from csmae_hf.hub.upload import PublishError, ensure_repository

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubRequest:
    """Where a run is to be published."""

    repo_id: str
    private: bool | None  # None is private
    revision: str | None  # None is `main`
    token: str | None = field(repr=False)  # None is the one of `hf auth login` or HF_TOKEN


def take_hub_request(args: TrainingArguments) -> HubRequest | None:
    """Take the wish to publish, and the token, out of the Trainer's arguments, which are saved; None where there is no wish.

    The main process makes the repository now: a wrong token ends a run before its first step and not after its last.

    Raises:
        ValueError: If checkpoints are to be pushed during the run.
        PublishError: If the Hub refuses or does not answer.
    """
    token, args.hub_token = args.hub_token, None
    getattr(args, "given", {}).pop("hub_token", None)  # the command line as it was given, which is saved too
    if not args.push_to_hub:
        return None
    args.push_to_hub = False
    if str(getattr(args.hub_strategy, "value", args.hub_strategy)) in ("checkpoint", "all_checkpoints"):
        raise ValueError(
            f"hub_strategy = {args.hub_strategy}: a run is pushed once, at its end. Leave hub_strategy out; `csmae push "
            "RUN/checkpoint-N REPO` publishes a checkpoint whenever you like."
        )
    name = args.hub_model_id or Path(str(args.output_dir)).resolve().name
    if args.process_index == 0:
        name = ensure_repository(name, private=args.hub_private_repo, token=token)
    return HubRequest(name, args.hub_private_repo, args.hub_revision, token)


def publish_run(request: HubRequest | None, args: TrainingArguments, folder: Path) -> None:
    """Publish a finished run where that was asked for; the main process does.

    Raises:
        PublishError: If that fails; the message says how to repeat it without training again.
    """
    if request is None or args.process_index != 0:
        return
    try:
        pushed = push_folder(
            folder, request.repo_id, private=request.private, token=request.token, revision=request.revision
        )
    except PublishError as error:
        raise PublishError(
            f"{error} The trained model is in {folder}: `csmae push {folder} {request.repo_id}` publishes it."
        ) from None
    logger.info("Published: %s, to pin as revision %s", pushed.url, pushed.commit)
