"""What users of diffusers and transformers type: other names of arguments, and those that have no meaning here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ONE_FILE = "there is one file of weights, whatever the precision; omit it, and choose the precision with dtype="
_SAFE = "weights are always safetensors; omit it"
_WHOLE = 'the network is small and lies on one device as a whole; omit it, and pass device="cuda" or call .to("cuda")'
_PARTS = "a model is a single network, without parts to choose; omit it"
_NO_TEXT = "nothing is made from text: the hole is completed from the image around it; omit it"
_NO_STEPS = "the hole is completed in one pass, without diffusion; omit it"
_SAME = "the same image and mask always give the same result; omit it"
_SIZE = "the result has the image's size; omit it, or resize the image first"

LOADING = {
    "attn_implementation": _PARTS,
    "custom_pipeline": _PARTS,
    "device_map": _WHOLE,
    "feature_extractor": _PARTS,
    "low_cpu_mem_usage": _WHOLE,
    "max_memory": _WHOLE,
    "mirror": "set HF_ENDPOINT in the environment",
    "offload_folder": _WHOLE,
    "pretrained_model_name_or_path": "pass the model as the first argument, or as model=",
    "proxies": "set HTTPS_PROXY in the environment",
    "quantization_config": _ONE_FILE,
    "requires_safety_checker": _PARTS,
    "resume_download": "downloads resume anyway; omit it",
    "safety_checker": _PARTS,
    "scheduler": _NO_STEPS,
    "trust_remote_code": "models are weights and hold no code; omit it",
    "use_auth_token": "pass token=",
    "use_safetensors": _SAFE,
    "variant": _ONE_FILE,
}
"""Arguments of `from_pretrained` elsewhere, and what to do here instead."""

SAVING = {
    "max_shard_size": "the weights are one small file; omit it",
    "safe_serialization": _SAFE,
    "save_function": _SAFE,
    "variant": _ONE_FILE,
}
"""Arguments of `save_pretrained` and `push_to_hub` elsewhere, and what to do here instead."""

COMPLETING = {
    "batch_size": "equal regions of a list or batch go through the network together anyway; omit it",
    "callback_on_step_end": "there are no steps; callback= is called with each completed image",
    "callback_steps": "there are no steps; callback= is called with each completed image",
    "eta": _NO_STEPS,
    "generator": _SAME,
    "guidance_scale": _NO_STEPS,
    "height": _SIZE,
    "ip_adapter_image": _NO_TEXT,
    "latents": _SAME,
    "negative_prompt": _NO_TEXT,
    "num_images_per_prompt": _SAME,
    "num_inference_steps": _NO_STEPS,
    "padding_mask_crop": "only what the hole needs is computed anyway; omit it",
    "prompt": _NO_TEXT,
    "prompt_embeds": _NO_TEXT,
    "return_dict": "the result is the image itself, or a list of images, without .images; omit it",
    "seed": _SAME,
    "strength": _NO_STEPS,
    "timesteps": _NO_STEPS,
    "width": _SIZE,
}
"""Arguments of pipelines elsewhere, and what to do here instead."""


def refuse(function: str, given: Iterable[str], instead: Mapping[str, str]) -> None:
    """Refuses arguments that a function does not have.

    Args:
        function: What messages call it.
        given: Names of arguments.
        instead: What to do instead of passing some of them, for those that are known from elsewhere.

    Raises:
        ValueError: There is one that is known.
        TypeError: There is another.
    """
    for name in given:
        if name in instead:
            raise ValueError(f"{function} takes no {name}: {instead[name]}")
        raise TypeError(f"{function} got an unexpected keyword argument {name!r}")


def either(name: str, value: Any, alias: str, other: Any) -> Any:
    """Returns what an argument was given under one of its two names; None if it was not.

    Raises:
        ValueError: It was given under both.
    """
    if value is not None and other is not None:
        raise ValueError(f"{alias} is another name of {name}; pass one of them")
    return value if other is None else other
