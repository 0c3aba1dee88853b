"""The card of a model on the Hub, and the picture in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from glcic_hub.config import GLCICConfig
from glcic_hub.files import write_whole
from glcic_hub.hub.export import OPSET
from glcic_hub.images.before_after import side_by_side
from glcic_hub.images.files import save_picture
from glcic_hub.images.samples import load_sample

if TYPE_CHECKING:
    from glcic_hub.pipeline import GLCICPipeline

CARD_FILE = "README.md"
CARD_PICTURE = "before-after.jpg"
SAMPLE = "rocket"
UNNAMED = "path/of/this/folder"
"""Stands in a card for the model's name, as long as it has none."""

METRICS = {"psnr": "PSNR in the hole, dB", "ssim": "SSIM in the hole", "texture": "texture ratio in the hole"}
TAGS = ["image-completion", "image-inpainting", "inpainting", "object-removal", "glcic"]


def write_card(folder: Path, pipe: GLCICPipeline, name: str = UNNAMED) -> None:
    """Writes the card of a model, and a picture that the model completed.

    Args:
        folder: The model folder.
        pipe: The model; what its config says of the training stands in the card.
        name: `user/name` on the Hub; empty for the model that comes with the package.

    Raises:
        OSError: They cannot be written.
    """
    image, mask = load_sample(SAMPLE)
    picture = side_by_side(image, mask, pipe(image, mask))
    save_picture(picture, folder / CARD_PICTURE, overwrite=True)
    text = f"---\n{card_data(pipe.config, name).to_yaml()}\n---\n\n{_body(pipe, name)}"
    write_whole(folder / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def name_card(folder: Path, name: str) -> None:
    """Fills the model's name into a card that was written without.

    Raises:
        ValueError: The card is not UTF-8.
        OSError: It cannot be written.
    """
    path = folder / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8").replace(UNNAMED, name)
    except UnicodeDecodeError:
        raise ValueError(f"the model card {CARD_FILE} is not UTF-8") from None
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def card_data(config: GLCICConfig, name: str) -> ModelCardData:
    """The card's metadata: what the Hub shows and finds a model by."""
    training = config.training or {}
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="Image completion",
            dataset_type="photographs",
            dataset_name=training["validation"],
            metric_type=metric,
            metric_name=METRICS[metric],
            metric_value=round(training["figures"][-1][metric], 3),
        )
        for metric in METRICS
        if training.get("figures")
    ]
    return ModelCardData(
        **training.get("license", {}),
        library_name="glcic-hub",
        pipeline_tag="image-to-image",
        tags=TAGS,
        datasets=training.get("datasets"),
        metrics=list(METRICS) if results else None,
        model_name=name or "glcic-hub",
        eval_results=results or None,
    )


def _body(pipe: GLCICPipeline, name: str) -> str:
    config = pipe.config
    training = config.training or {}
    template = resources.files("glcic_hub.hub") / "model_card_template.md"
    return Template(template.read_text(encoding="utf-8")).substitute(
        name=f'"{name}"' if name else "",
        picture=CARD_PICTURE,
        title=training.get("title", "Image completion, trained with glcic-hub"),
        width=config.width,
        opset=OPSET,
        megabytes=f"{4e-6 * sum(parameter.numel() for parameter in pipe.network.parameters()):.0f}",
        option=f" --model {name}" if name else "",
        mean_pixel=", ".join(f"{value:.4f}" for value in config.mean_pixel),
        training=_training(training) if training else "What it was trained on was not recorded.",
        figures=_figures(training) if training.get("figures") else "Not measured.",
        terms=training.get("terms", "Whatever the photographs' terms say of weights that were trained on them."),
    )


def _training(training: Mapping[str, Any]) -> str:
    rows = {"data": "data", "steps": "steps done", "start": "started from", "software": "trained with"}
    lines = [
        "| | |",
        "|---|---|",
        *(f"| {title} | {training[key]} |" for key, title in rows.items() if key in training),
    ]
    if "recipe" not in training:
        return "\n".join(["| | |", "|---|---|", *lines])
    recipe = yaml.safe_dump(dict(training["recipe"]), sort_keys=False)
    return "\n".join(lines) + f"\n\nRecipe:\n\n```yaml\n{recipe}```"


def _figures(training: Mapping[str, Any]) -> str:
    lines = ["| after phase | step | PSNR, dB | SSIM | texture ratio |", "|---|---|---|---|---|"]
    for row in training["figures"]:
        lines.append(
            f"| {row['phase']} | {row['step']} | {row['psnr']:.2f} | {row['ssim']:.3f} | {row['texture']:.2f} |"
        )
    return f"Inside the hole, without blending, on {training['validation']}:\n\n" + "\n".join(lines)
