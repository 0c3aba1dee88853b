"""What the Hub takes as metadata of a card, after its documentation: the rules of the local Hub."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

LICENSES = set(
    re.findall(
        r"\S+",
        """
        apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
        bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
        cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
        cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
        cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
        agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++
        osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other
        """,
    )
)
VISION_TASKS = {
    "depth-estimation", "image-classification", "image-feature-extraction", "image-segmentation", "image-to-image",
    "image-to-text", "image-to-video", "keypoint-detection", "mask-generation", "object-detection", "text-to-image",
    "unconditional-image-generation", "zero-shot-image-classification",
}  # fmt: skip
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
IDENTIFIER = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
ADDRESS = re.compile(r"https?://\S+")


def errors_of(content: str, kind: str) -> list[str]:
    """What is wrong with the metadata of a README of a model or a Space; nothing where there are none."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be an object"]
    return [*_license_errors(data), *(_space_errors(data) if kind == "space" else _model_errors(data))]


def _license_errors(data: dict[str, Any]) -> list[str]:
    wrong = [f'"license" must be one of [{", ".join(sorted(LICENSES))}]'] * (
        not set(_listed(data.get("license"))) <= LICENSES
    )
    if "license_name" in data and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", str(data["license_name"])):
        wrong.append('"license_name" must be lower case, with digits, dots and hyphens')
    link = data.get("license_link", "LICENSE")
    if link not in ("LICENSE", "LICENSE.md") and not ADDRESS.fullmatch(str(link)):
        wrong.append('"license_link" must be one of [LICENSE, LICENSE.md], or a valid uri')
    return wrong


def _model_errors(data: dict[str, Any]) -> list[str]:
    wrong = []
    for key in ("base_model", "datasets"):
        wrong += [
            f'"{key}" with value "{name}" is not valid. Use an id from https://hf.co.'
            for name in _listed(data.get(key))
            if not isinstance(name, str) or not IDENTIFIER.fullmatch(name)
        ]
    if data.get("pipeline_tag", "image-to-image") not in VISION_TASKS:
        wrong.append(f'"pipeline_tag" must be one of [{", ".join(sorted(VISION_TASKS))}]')
    for key in ("tags", "metrics"):
        if not all(isinstance(name, str) for name in data.get(key, [])):
            wrong.append(f'"{key}" must be an array of strings')
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str):
            wrong.append('"model-index[0].name" is required')
        for result in model.get("results", []):
            needed = [
                result.get("task", {}).get("type"),
                *(result.get("dataset", {}).get(k) for k in ("type", "name")),
            ]
            needed += [metric.get("type") for metric in result.get("metrics", [])]
            values = [metric.get("value") for metric in result.get("metrics", [])]
            if not all(isinstance(text, str) and text for text in needed):
                wrong.append('"model-index[0].results[0]" lacks what is required')
            if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
                wrong.append('"model-index[0].results[0].metrics[0].value" must be a number')
    return wrong


def _space_errors(data: dict[str, Any]) -> list[str]:
    wrong = [
        f'"{key}" must be one of [{", ".join(sorted(COLOURS))}]'
        for key in ("colorFrom", "colorTo")
        if data.get(key, "gray") not in COLOURS
    ]
    if data.get("sdk") not in ("gradio", "docker", "static"):
        wrong.append('"sdk" must be one of [gradio, docker, static]')
    for key in ("python_version", "sdk_version"):
        if not re.fullmatch(r"\d+(\.\d+)+", str(data.get(key, "1.0"))) or isinstance(data.get(key), float):
            wrong.append(f'"{key}" must be a version')
    if len(data.get("short_description", "")) > 60:
        wrong.append('"short_description" length must be less than or equal to 60 characters long')
    return wrong


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
