"""The card of a model on the Hub, and the image in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData
from PIL import Image

from glcic_hub.config import GLCICConfig
from glcic_hub.files import write_text
from glcic_hub.hub.export import OPSET
from glcic_hub.images.files import save_image
from glcic_hub.networks import CompletionNetwork

CARD_FILE = "README.md"
CARD_IMAGE = "before-after.jpg"
UNNAMED = "path/of/this/folder"
"""Stands in a card for the model's name, as long as it has none."""

METRICS = {"psnr": "PSNR in the hole, dB", "ssim": "SSIM in the hole", "texture": "texture ratio in the hole"}
TAGS = ["image-completion", "image-inpainting", "inpainting", "object-removal", "glcic"]


def write_card(folder: Path, config: GLCICConfig, image: Image.Image, name: str = UNNAMED) -> None:
    """Writes the card of a model, and an image that shows what the model does.

    Args:
        folder: The model folder.
        config: The model's; the card repeats what it says of the training.
        image: Hole, result and original in a row, as `pipeline.card_image` makes it.
        name: `user/name` on the Hub; empty for the model that comes with the package.

    Raises:
        OSError: They cannot be written.
    """
    save_image(image, folder / CARD_IMAGE, overwrite=True)
    text = f"---\n{card_data(config, name).to_yaml()}\n---\n\n{_body(config, name)}"
    write_text(folder / CARD_FILE, text)


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
    write_text(path, text)


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


def _body(config: GLCICConfig, name: str) -> str:
    with torch.device("meta"):  # takes no memory
        network = CompletionNetwork(config.width, config.mean_pixel, config.order)
    training = config.training or {}
    template = resources.files("glcic_hub.hub") / "model_card_template.md"
    return Template(template.read_text(encoding="utf-8")).substitute(
        name=f'"{name}"' if name else "",
        image=CARD_IMAGE,
        title=training.get("title", "Image completion, trained with glcic-hub"),
        width=config.width,
        opset=OPSET,
        megabytes=f"{4e-6 * sum(parameter.numel() for parameter in network.parameters()):.0f}",
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
        return "\n".join(lines)
    recipe = yaml.safe_dump(dict(training["recipe"]), sort_keys=False)
    return "\n".join(lines) + f"\n\nRecipe:\n\n```yaml\n{recipe}```"


def _figures(training: Mapping[str, Any]) -> str:
    lines = ["| after phase | step | PSNR, dB | SSIM | texture ratio |", "|---|---|---|---|---|"]
    for row in training["figures"]:
        lines.append(
            f"| {row['phase']} | {row['step']} | {row['psnr']:.2f} | {row['ssim']:.3f} | {row['texture']:.2f} |"
        )
    return f"Inside the hole, without blending, on {training['validation']}:\n\n" + "\n".join(lines)
