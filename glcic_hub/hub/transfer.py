"""Models on the Hub: download, upload, and what went wrong in a sentence.

Not by `PyTorchModelHubMixin`: that takes config and weights from whatever commits are newest when each is asked for,
and leaves a config that it could not get to whoever builds the network.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import HfApi, RepoCard, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from glcic_hub.files import first_line
from glcic_hub.hub.card import CARD_FILE, CARD_IMAGE, LICENSE_FILES, UNNAMED, name_card
from glcic_hub.hub.model_files import (
    CONFIG_FILE,
    DISCRIMINATOR_PARTS,
    MODEL_FILES,
    WEIGHTS_FILE,
    packaged_model,
)
from glcic_hub.version import __version__

LOG_IN = "log in (hf auth login) or pass a token (token=..., HF_TOKEN)"
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".t7")


def fetch_model(
    model: str | Path,
    *,
    subfolder: str | None = None,
    to_train: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Returns the folder of a model: a folder as it is; `user/name` on the Hub is downloaded into the cache.

    Args:
        model: The name of one that comes with the package, a folder, or `user/name`. The first of these that there is
            is meant.
        subfolder: Where in the folder or repository the model is; None means at its top.
        to_train: Download what further training takes, too, as far as it is there: discriminators, card and license.
        revision: Branch, tag or commit on the Hub.
        token: For private and gated models; None takes the one of `hf auth login` or `HF_TOKEN`, False none.
        cache_dir: Where downloads are kept; None takes the Hub's own cache.
        local_files_only: Take what the cache holds, without network access; so does `HF_HUB_OFFLINE=1`.
        force_download: Download anew what the cache holds.

    Raises:
        FileNotFoundError: No such folder, model, revision or file; or not in the cache, without network access.
        PermissionError: The model is gated, or the token is refused.
        ValueError: `model` is no name, or the model holds its weights as a pickle alone.
        OSError: The Hub cannot be reached or fails, or the disk is full.
    """
    folder = packaged_model(model) or Path(model)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder} is a folder here, which has no revisions, such as {revision}; omit it")
        return folder / (subfolder or "")
    if isinstance(model, Path) or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise FileNotFoundError(f"no model in {folder}: {folder.name} does not exist")
    download = partial(
        hf_hub_download,
        model,
        subfolder=subfolder,
        token=_checked(token),
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        library_name="glcic-hub",
        library_version=__version__,
    )
    with _explained(model, f"cannot load {model}"):
        try:
            config = Path(download(CONFIG_FILE, revision=revision))
            # All else comes from the commit of the config, even if another is pushed meanwhile.
            commit = config.parents[len(Path(subfolder or "").parts)].name
            download(WEIGHTS_FILE, revision=commit)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise _what_is_missing(model, subfolder, revision, token, error) from None
        if to_train and not (local_files_only or constants.HF_HUB_OFFLINE):
            present = HfApi(token=_checked(token)).list_repo_files(model, revision=commit)
            for file in (CARD_FILE, *LICENSE_FILES, *(f"{part}.safetensors" for part in DISCRIMINATOR_PARTS)):
                if _inside(subfolder, file) in present:
                    download(file, revision=commit)
    return config.parent


def look_up(model: str) -> tuple[str, int]:
    """Looks up the newest commit of a public model on the Hub, and the bytes of what completion needs of it.

    Raises:
        FileNotFoundError: No such model, or downloads are switched off.
        OSError: The Hub cannot be reached or fails.
    """
    with _explained(model, f"cannot load {model}"):
        try:
            info = HfApi(token=False).model_info(model, files_metadata=True)
        except OfflineModeIsEnabled as error:
            raise LocalEntryNotFoundError("") from error
        except RepositoryNotFoundError:  # or private, or gated
            raise FileNotFoundError(f"there is no model {model} on the Hub that everybody may see") from None
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    return info.sha or "main", sum(sizes.get(file, 0) for file in (CONFIG_FILE, WEIGHTS_FILE))


def _checked(token: str | bool | None) -> str | bool | None:
    """Strips a token of what is around it in a file; the HTTP library would print one that it cannot send."""
    if not isinstance(token, str):
        return token
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty, or has characters in it that no token has")
    return token


def _inside(subfolder: str | None, file: str) -> str:
    return (PurePosixPath(subfolder or "") / file).as_posix()


def _what_is_missing(
    model: str, subfolder: str | None, revision: str | None, token: str | bool | None, error: Exception
) -> Exception:
    files = HfApi(token=_checked(token)).list_repo_files(model, revision=revision)
    pickles = sorted(file for file in files if file.endswith(PICKLES))
    if _inside(subfolder, WEIGHTS_FILE) not in files and pickles:
        return ValueError(
            f"{model} has no {WEIGHTS_FILE} but {pickles[0]}, which may run code when it is read and is not loaded; "
            "download it and see whether glcic convert knows it"
        )
    wanted = [_inside(subfolder, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    missing = ", ".join(name for name in wanted if name not in files) or first_line(error)
    return FileNotFoundError(f"{model} is no model of this kind: it lacks {missing} at {revision or 'main'}")


def make_repository(name: str, *, kind: str = "model", private: bool | None = None, token: str | None = None) -> str:
    """Makes a repository on the Hub, if it does not exist.

    Args:
        name: `user/name`, or `name` for one of your own.
        kind: `model`, or `space` for a Gradio Space.
        private: None takes the account's default; an existing repository stays as it is.
        token: None takes the one of `hf auth login` or `HF_TOKEN`.

    Returns:
        `user/name`.

    Raises:
        ValueError: `name` is not a name.
        PermissionError: There is no token, or it is refused.
        OSError: The Hub cannot be reached or fails.
    """
    api = HfApi(token=_checked(token))
    with _explained(name, f"cannot push to {name}"):
        api.whoami()  # `create_repo` says nothing of a wrong token where the repository exists
        sdk = "gradio" if kind == "space" else None
        return api.create_repo(name, repo_type=kind, space_sdk=sdk, private=private, exist_ok=True).repo_id


def check_card(card: str, name: str, *, kind: str = "model") -> None:
    """Asks the Hub whether it takes a card, before anything is made there.

    Args:
        card: Its text, metadata included.
        name: Of the repository that it is for.
        kind: As for `make_repository`.

    Raises:
        ValueError: The card's metadata are not what the Hub takes.
        OSError: The Hub cannot be reached or fails.
    """
    with _explained(name, f"cannot push to {name}"):
        try:
            RepoCard(card).validate(repo_type=kind)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"the Hub refuses the metadata of {CARD_FILE}: {' '.join(str(error).split())}") from None


def copy_model(folder: Path, to: Path) -> None:
    """Copies a model folder's model, card and license, and nothing else that lies there."""
    for pattern in (*MODEL_FILES, *LICENSE_FILES, CARD_FILE, CARD_IMAGE):
        for file in folder.glob(pattern):
            shutil.copy(file, to)


def upload_model(
    folder: Path,
    name: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    tag: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Model of glcic-hub",
) -> str:
    """Uploads a model folder in one commit, and names the model in its card.

    Files of a model that the repository has and the folder has not are removed there.

    Args:
        folder: Holds nothing but a model and its card.
        name: `user/name`, or `name` for one of your own; made if it does not exist.
        private: Of a new repository; None takes the account's default.
        token: None takes the one of `hf auth login` or `HF_TOKEN`.
        revision: The branch to commit to, made if it does not exist; None means main.
        tag: A name for the commit that stays with it, to load the model by; a new one.
        create_pr: Propose the commit as a pull request.
        commit_message: Its first line.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ValueError: `name` is not a name, the card is not UTF-8 or is refused, the tag exists, or there is one for a
            pull request.
        PermissionError: There is no token, or it is refused.
        OSError: The Hub cannot be reached or fails.
    """
    if tag is not None and create_pr:
        raise ValueError(f"a pull request is not tagged; merge it, and then tag it {tag} on the Hub")
    check_card(name_card(folder, UNNAMED), name)  # fails before a repository is made
    repository = make_repository(name, private=private, token=token)
    name_card(folder, repository)
    api = HfApi(token=_checked(token))
    with _explained(repository, f"cannot push to {repository}"):
        if tag is not None and tag in [existing.name for existing in api.list_repo_refs(repository).tags]:
            raise ValueError(f"{repository} has the tag {tag} already, and tags stay; give another")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
    return push_folder(
        folder,
        repository,
        commit_message,
        token=token,
        create_pr=create_pr,
        revision=revision,
        tag=tag,
        replaces=MODEL_FILES,
    )


def push_folder(
    folder: Path,
    repository: str,
    message: str,
    *,
    kind: str = "model",
    token: str | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    replaces: Sequence[str] = (),
) -> str:
    """Uploads a folder to a repository on the Hub, in one commit.

    Args:
        folder: All of it is uploaded but hidden files.
        repository: `user/name`, as `make_repository` made it.
        message: Of the commit.
        kind: As for `make_repository`.
        token: As for `make_repository`.
        create_pr: Propose the commit as a pull request.
        revision: The branch to commit to; None means main.
        tag: A new tag for the commit.
        replaces: Patterns of files that go from the repository if the folder does not have them.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        PermissionError: The token is refused.
        OSError: The Hub cannot be reached or fails.
    """
    api = HfApi(token=_checked(token))
    with _explained(repository, f"cannot push to {repository}"):
        commit = api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=folder,
            commit_message=message,
            create_pr=create_pr,
            revision=revision,
            delete_patterns=list(replaces),
            ignore_patterns=[".*", "**/.*"],
        )
        if tag is not None:
            api.create_tag(repository, tag=tag, revision=commit.oid, repo_type=kind)
    return str(commit.pr_url or commit.commit_url)


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turns errors of huggingface_hub, and of the HTTP library below it, into one sentence each."""
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise _unreachable(what, error) from None
    except LocalTokenNotFoundError:
        raise PermissionError(f"{what}: there is no token; {LOG_IN}") from None
    except GatedRepoError:
        page = f"{constants.ENDPOINT}/{name}"
        raise PermissionError(f"{what}: it is gated; ask for access at {page}, then {LOG_IN}") from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{what}: there is no folder of that name here, and nothing on the Hub that this token may see; "
            f"if it is private, {LOG_IN}"
        ) from None
    except RevisionNotFoundError:
        raise FileNotFoundError(f"{what}: it has no such revision; give a branch, a tag or a commit") from None
    except HfHubHTTPError as error:
        raise _refusal(what, error) from None
    except HFValidationError as error:
        raise ValueError(f"{what}: {first_line(error)}") from None
    except ValueError as error:
        if error.__cause__ is None:
            raise
        raise _unreachable(what, error) from None  # of a forced download
    except FileNotFoundError:
        raise
    except OSError as error:
        if getattr(error, "response", None) is not None:  # older releases of huggingface_hub
            raise _refusal(what, error) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(f"{what}: the disk is full, or takes no file as large ({error.strerror})") from None
        raise OSError(f"{what}: {first_line(error)}") from None
    except Exception as error:  # of the HTTP library, which is not the same for all releases
        raise OSError(f"{what}: the connection to the Hub failed, try again ({first_line(error)})") from None


def _unreachable(what: str, error: Exception) -> OSError:
    """Says why what is not in the cache could not be had."""
    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return _refusal(what, cause)
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return FileNotFoundError(f"{what}: it is not in the cache, and downloads are switched off")
    return OSError(f"{what}: it is not in the cache, and the Hub cannot be reached ({first_line(cause)})")


def _refusal(what: str, error: Any) -> OSError:
    status = error.response.status_code
    said = " ".join((getattr(error, "server_message", None) or first_line(error)).split())
    if status in (401, 403):
        return PermissionError(f"{what}: the Hub refuses the token ({status}: {said}), or has none; {LOG_IN}")
    if status == 429:
        return OSError(f"{what}: Hub rate limit reached (429); retry in a few minutes")
    if status >= 500:
        return OSError(f"{what}: the Hub has a fault ({status}); try again later")
    return OSError(f"{what}: the Hub refuses ({status}: {said})")
