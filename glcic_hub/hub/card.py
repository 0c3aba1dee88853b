"""The card of a model on the Hub, and the image in it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load
from PIL import Image

from glcic_hub.config import LICENSE, GLCICConfig
from glcic_hub.files import first_line, write_text
from glcic_hub.hub.export import OPSET
from glcic_hub.images.files import save_image
from glcic_hub.networks import CompletionNetwork

CARD_FILE = "README.md"
CARD_IMAGE = "before-after.jpg"
LICENSE_FILES = ("LICENSE", "LICENSE.md")
"""What the Hub takes as `license_link`, if it is no address."""

UNNAMED = "path/of/this/folder"
"""Stands in a card for the model's name, as long as it has none."""

METRICS = {"psnr": "PSNR in the hole, dB", "ssim": "SSIM in the hole", "texture": "texture ratio in the hole"}
TAGS = ["image-completion", "image-inpainting", "inpainting", "object-removal", "glcic"]


def write_card(folder: Path, config: GLCICConfig, image: Image.Image, name: str = UNNAMED) -> None:
    """Writes the card of a model, an image that shows what the model does, and the license that the card links to.

    Args:
        folder: The model folder. A license in it stays as it is.
        config: The model's; the card repeats what it says of the training.
        image: Hole, result and original in a row, as `pipeline.card_image` makes it.
        name: `user/name` on the Hub, or the name of a model that comes with the package.

    Raises:
        OSError: They cannot be written.
    """
    save_image(image, folder / CARD_IMAGE, overwrite=True)
    link = _license(config).get("license_link")
    if link in LICENSE_FILES and not (folder / link).exists():
        write_text(folder / link, license_text(config))
    write_text(folder / CARD_FILE, card_text(config, name))


def card_text(config: GLCICConfig, name: str = UNNAMED) -> str:
    """Writes the card of a model; arguments as for `write_card`."""
    return f"---\n{card_data(config, name).to_yaml()}\n---\n\n{_body(config, name)}"


def license_text(config: GLCICConfig) -> str:
    """Writes the license of a model's weights, from what its config says of terms and training."""
    training = config.training or {}
    lines = [
        f"License of the weights beside this file: {_license(config).get('license_name', 'other')}",
        _terms(training),
        *(f"They were trained on: {data}" for data in (training.get("data"), *training.get("sources", [])) if data),
    ]
    return "\n\n".join(textwrap.fill(line, 100, break_on_hyphens=False) for line in lines) + "\n"


def inherited(folder: Path, config: GLCICConfig, name: str) -> dict[str, Any]:
    """Lists what the record of a training takes over from the model that it starts from.

    Args:
        folder: Of that model. What its card says of the license goes before what the config says.
        config: The model's.
        name: `user/name` on the Hub; else a folder's name, without a slash.

    Raises:
        ValueError: The card's metadata cannot be read.
    """
    training = config.training or {}
    try:
        metadata = (metadata_load(folder / CARD_FILE) or {}) if (folder / CARD_FILE).is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the metadata of {folder / CARD_FILE}: {first_line(error)}; mend them") from None
    license_ = {key: metadata[key] for key in LICENSE if isinstance(metadata.get(key), str)}
    record = {
        "start": f"{name} ({training['title']})" if "title" in training else name,
        "base_model": name if "/" in name else training.get("base_model"),
        "sources": [line for line in (training.get("data"), *training.get("sources", [])) if line],
        "datasets": list(training.get("datasets", [])),
        "license": license_ or dict(_license(config)),
        "terms": training.get("terms"),
    }
    return {key: value for key, value in record.items() if value}


def name_card(folder: Path, name: str) -> str:
    """Fills the model's name into a card that was written without, and returns the card.

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
    return text


def card_data(config: GLCICConfig, name: str) -> ModelCardData:
    """Makes the card's metadata: what the Hub shows and finds a model by."""
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
        **_license(config),
        base_model=training.get("base_model"),
        library_name="glcic-hub",
        pipeline_tag="image-to-image",
        tags=TAGS,
        datasets=training.get("datasets"),
        metrics=list(METRICS) if results else None,
        model_name=name,
        eval_results=results or None,
    )


def _body(config: GLCICConfig, name: str) -> str:
    with torch.device("meta"):  # takes no memory
        network = CompletionNetwork(config.width, config.mean_pixel, config.order)
    training = config.training or {}
    template = resources.files("glcic_hub.hub") / "model_card_template.md"
    alone = config.detail == "none"
    return Template(template.read_text(encoding="utf-8")).substitute(
        name=f'"{name}"',
        image=CARD_IMAGE,
        made="this model" if alone else "this model and the image's own detail",
        default="by the network alone, blended" if alone else "detail from the image, guided by the network",
        bare='blend="none"' if alone else 'detail="none"',
        title=training.get("title", "Image completion, trained with glcic-hub"),
        width=config.width,
        opset=OPSET,
        megabytes=f"{4e-6 * sum(parameter.numel() for parameter in network.parameters()):.0f}",
        option=f" --model {name}",
        mean_pixel=", ".join(f"{value:.4f}" for value in config.mean_pixel),
        training=_training(training) if training else "What it was trained on was not recorded.",
        figures=_figures(training) if training.get("figures") else "Not measured.",
        terms=_terms(training),
    )


def _license(config: GLCICConfig) -> dict[str, Any]:
    """Makes the license entries of a card's metadata; a link that is no address becomes `LICENSE`."""
    license_ = dict((config.training or {}).get("license", {}))
    link = license_.get("license_link")
    if link and "://" not in link and link not in LICENSE_FILES:
        license_["license_link"] = LICENSE_FILES[0]
    return license_


def _terms(training: Mapping[str, Any]) -> str:
    photographs = "Whatever the photographs' terms say of weights that were trained on them."
    start = training.get("start", "scratch")
    if start == "scratch":
        return str(training.get("terms", photographs))
    before = training.get("terms", "they are not recorded.")
    return f"Those of the model that it was trained from, {start}: {before} Besides: {photographs}"


def _training(training: Mapping[str, Any]) -> str:
    rows = {"data": "data", "steps": "steps done", "start": "started from", "software": "trained with"}
    lines = [
        "| | |",
        "|---|---|",
        *(f"| {title} | {training[key]} |" for key, title in rows.items() if key in training),
        *(f"| trained before on | {data} |" for data in training.get("sources", [])),
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
