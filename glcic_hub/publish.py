"""Models for the Hub: what is uploaded, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from glcic_hub.hub.card import CARD_FILE, CARD_PICTURE, UNNAMED, name_card, write_card
from glcic_hub.hub.model_files import MODEL_FILES
from glcic_hub.hub.transfer import make_repository, push_folder
from glcic_hub.pipeline import GLCICPipeline, card_image


def push_model(
    folder: Path,
    name: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Model of glcic-hub",
) -> str:
    """Uploads a model folder, discriminators included, in one commit.

    Its model card goes as it is, with the model's name filled in; one is made if there is none.

    Args:
        folder: As the training or `GLCICPipeline.save_pretrained` wrote it.
        name: `user/name`, or `name` for one of your own; made if it does not exist.
        private: Of a new repository; None takes the account's default.
        token: None takes the one of `hf auth login` or `HF_TOKEN`.
        create_pr: Propose the commit as a pull request.
        commit_message: Its first line.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        FileNotFoundError: The folder holds no model.
        ValueError: The model is broken, or `name` is not a name.
        PermissionError: There is no token, or it is refused.
        OSError: The Hub cannot be reached or fails.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no model in {folder}: it is no folder")
    pipe = GLCICPipeline.from_pretrained(folder, device="cpu")  # what cannot be loaded is not uploaded
    with tempfile.TemporaryDirectory() as temporary:
        upload = Path(temporary)
        for file in (*MODEL_FILES, CARD_FILE, CARD_PICTURE):
            if (folder / file).is_file():
                shutil.copy(folder / file, upload)
        if not (upload / CARD_FILE).exists():
            write_card(upload, pipe.config, card_image(pipe))
        name_card(upload, UNNAMED)  # what cannot be uploaded leaves no repository behind
        repository = make_repository(name, private=private, token=token)
        name_card(upload, repository)
        return push_folder(upload, repository, commit_message, token=token, create_pr=create_pr, replaces=MODEL_FILES)
