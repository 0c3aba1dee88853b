"""Models for the Hub: what is uploaded, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from glcic_hub.files import write_text
from glcic_hub.hub.card import CARD_FILE, card_text, write_card
from glcic_hub.hub.transfer import copy_model, upload_model
from glcic_hub.pipeline import GLCICPipeline, card_image


def push_model(
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
    """Uploads a model folder, discriminators, recipes and license included, in one commit.

    Its model card goes as it is, with the model's name filled in; one is made if there is none.

    Args:
        folder: As the training or `GLCICPipeline.save_pretrained` wrote it.
        name: As `repo_id` of `GLCICPipeline.push_to_hub`.
        private: As for `GLCICPipeline.push_to_hub`.
        token: As for `GLCICPipeline.push_to_hub`.
        revision: As for `GLCICPipeline.push_to_hub`.
        tag: As for `GLCICPipeline.push_to_hub`.
        create_pr: As for `GLCICPipeline.push_to_hub`.
        commit_message: As for `GLCICPipeline.push_to_hub`.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        FileNotFoundError: The folder holds no model.
        ValueError: The model is broken, the card is not UTF-8 or is refused, or as for `GLCICPipeline.push_to_hub`.
        PermissionError: As for `GLCICPipeline.push_to_hub`.
        OSError: As for `GLCICPipeline.push_to_hub`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no model in {folder}: not a directory")
    pipe = GLCICPipeline.from_pretrained(folder, device="cpu")  # what cannot be loaded is not uploaded
    with tempfile.TemporaryDirectory() as temporary:
        upload = Path(temporary)
        copy_model(folder, upload)
        card = upload / CARD_FILE
        if not card.exists():
            write_card(upload, pipe.config, card_image(pipe))
        elif card.read_bytes() == card_text(pipe.config, folder.resolve().name).encode():  # one of the package's
            write_text(card, card_text(pipe.config))
        return upload_model(
            upload,
            name,
            private=private,
            token=token,
            revision=revision,
            tag=tag,
            create_pr=create_pr,
            commit_message=commit_message,
        )
