"""A folder to the Hub in one commit that can be repeated, and errors that say what to do and hold no token."""

import fnmatch
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from csmae_hf.files import LOCK_NAME

RepoType = Literal["model", "dataset"]

ATTEMPTS = 4
"""Times a commit is tried when the Hub is busy or the connection breaks; the client itself retries all but the commit."""

_TRANSPORT_ERROR: type[Exception] = next(
    base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
)  # of the HTTP library that huggingface_hub uses, which differs between its versions
_REMEDIES = {
    400: "it does not accept what was sent",
    401: "there is no token, or the Hub does not know it: run `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there: use one with write permission, of a member of the organisation",
    404: "no such repository or branch, or the token may not see it: check the name",
    409: "somebody else is changing the repository: repeat the command",
    412: "somebody else has changed the repository meanwhile: repeat the command",
    429: "too many requests: wait some minutes and repeat the command",
}
_REPEAT = "repeat the command: what is uploaded already is not uploaded again"
_TOKEN = re.compile(r"hf_\w{8,}")

logger = logging.getLogger(__name__)


class PublishError(ValueError):
    """A push failed; the message says why and what to do, and holds no token."""


@dataclass(frozen=True)
class Pushed:
    """What a push made.

    Attributes:
        repo_id: The repository's full name.
        url: Its page.
        commit: Hash of the commit that holds the files: the `revision` to pin.
        private: Whether strangers cannot see it.
    """

    repo_id: str
    url: str
    commit: str
    private: bool


def ensure_repository(
    repo_id: str, *, repo_type: RepoType = "model", private: bool | None = None, token: str | None = None
) -> str:
    """Make a repository where there is none, and find out that it can be written to.

    Args:
        repo_id: `owner/name`, or the name alone for the token's owner.
        repo_type: `"model"` or `"dataset"`.
        private: Whether a new repository is private; None is private. One that exists stays what it is.
        token: Token; default the one of `hf auth login` or HF_TOKEN.

    Returns:
        Its full name.

    Raises:
        PublishError: If the Hub refuses or does not answer.
    """
    held = token or get_token()
    if held and not re.fullmatch(
        r"[!-~]+", held
    ):  # no header can carry it, and the HTTP libraries would quote it in their logs
        raise PublishError("The token holds spaces, line breaks or letters that no token has: copy it again, whole.")
    with clear_errors(repo_id, token):
        private = True if private is None else private
        return HfApi(token=token).create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id


def upload_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload files",
    managed: Sequence[str] = (),
) -> Pushed:
    """Make a repository hold the files of a folder.

    Everything appears in one commit, or nothing. An interrupted push is repeated by calling this again: what was uploaded is
    not uploaded again, and the files end the same. A push that changes nothing makes no commit.

    Args:
        folder: The files, sub-folders included.
        repo_id: `owner/name`, or the name alone for the token's owner.
        repo_type: `"model"` or `"dataset"`.
        private: As of [`ensure_repository`].
        token: As of [`ensure_repository`].
        revision: Branch to push to, made where it does not exist; default `main`.
        commit_message: Headline of the commit.
        managed: Patterns of the files that such a push is in charge of: those in the repository that match, and are not in
            the folder, are deleted with the same commit.

    Returns:
        Where it is now.

    Raises:
        FileNotFoundError: If the folder is empty or not there.
        PublishError: If the Hub refuses or does not answer.
    """
    folder = Path(folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK_NAME]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    if not files:
        raise FileNotFoundError(f"Nothing to push: {folder} has no files.")
    repo_id = ensure_repository(repo_id, repo_type=repo_type, private=private, token=token)
    api = HfApi(token=token)
    with clear_errors(repo_id, token):
        info = api.repo_info(repo_id, repo_type=repo_type)
        if private is None and info.private:
            logger.info("%s is private: only you can see it until you make it public in its settings.", repo_id)
        elif private not in (None, info.private):
            message = "%s exists already and stays %s: change that in its settings on the Hub."
            logger.warning(message, repo_id, "private" if info.private else "public")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                present = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
                stale = sorted(_matching(present, managed) - files.keys())
                commit = api.create_commit(
                    repo_id,
                    [
                        *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
                        *(CommitOperationDelete(name) for name in stale),
                    ],
                    commit_message=commit_message,
                    repo_type=repo_type,
                    revision=revision,
                )
                break
            except _TRANSPORT_ERROR as error:
                status = _status(error)
                if attempt == ATTEMPTS or not (status is None or status in (408, 429) or status >= 500):
                    raise
                logger.warning("The push to %s broke off (%s); trying again.", repo_id, _describe(error, token))
                time.sleep(min(2.0**attempt, 8))
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    return Pushed(repo_id, f"{api.endpoint}/{prefix}{repo_id}", commit.oid, bool(info.private))


@contextmanager
def clear_errors(repo_id: str, token: str | None = None) -> Iterator[None]:
    """Turn the Hub's errors into a [`PublishError`], without the token and without the chain of errors that may hold it."""
    try:
        yield
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} cannot be the name of a repository: {error}") from None
    except (_TRANSPORT_ERROR, OSError, ValueError) as error:
        raise PublishError(f"Pushing to {repo_id} failed: {_describe(error, token)}.") from None


def quiet_http() -> None:
    """Keep the HTTP library from logging each request, in a program whose own log is at the level of information."""
    logging.getLogger(_TRANSPORT_ERROR.__module__.split(".")[0]).setLevel(logging.WARNING)


def without_token(text: str, token: str | None = None) -> str:
    """Take every token out of a text: the given one, the process's own, and whatever looks like one."""
    for secret in (token, get_token()):
        if secret:
            for form in (secret, repr(secret)[1:-1]):
                text = text.replace(form, "<token>")
    return _TOKEN.sub("<token>", text)


def _describe(error: Exception, token: str | None) -> str:
    """The remedy, then the Hub's own words in one line."""
    own = without_token(" ".join(str(error).split()), token).rstrip(".")
    status = _status(error)
    if "xet-write-token" in own or "xet-read-token" in own:
        return f"this hub has no Xet storage: set HF_HUB_DISABLE_XET=1 and {_REPEAT} ({own})"
    if status in _REMEDIES:
        return f"the Hub answered {status}, {_REMEDIES[status]} ({own})"
    if status is not None:
        return f"the Hub answered {status}; {_REPEAT} ({own})"
    if isinstance(error, _TRANSPORT_ERROR | ConnectionError | TimeoutError):
        return f"no answer ({type(error).__name__}: {own}); check the network and HF_ENDPOINT, and {_REPEAT}"
    return own


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The files that match one of the patterns, of which a star does not reach into sub-folders."""
    return {name for one in patterns for name in fnmatch.filter(names, one) if name.count("/") == one.count("/")}


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
