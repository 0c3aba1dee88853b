"""The demo: paint over what should go, get the picture back."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from glcic_hub.pipeline import GLCICPipeline


def make_demo(model: str | None = None) -> gr.Blocks:
    """Builds the demo; `launch` starts it.

    Args:
        model: As for `GLCICPipeline.from_pretrained`.

    Raises:
        FileNotFoundError: No such model.
        ValueError: The model is broken.
    """
    pipe = GLCICPipeline.from_pretrained(model)

    def complete(drawing: dict[str, Any] | None, blend: bool) -> Image.Image:
        if drawing is None or drawing["background"] is None:
            raise gr.Error("Choose a photograph first.", print_exception=False)
        photograph = drawing["background"].convert("RGB")
        mask = np.zeros((photograph.height, photograph.width), bool)
        for layer in drawing["layers"]:
            mask |= np.asarray(layer.convert("RGBA"))[..., 3] > 0
        if not mask.any():
            raise gr.Error("Paint over what should go, then press the button.", print_exception=False)
        try:
            completed: Image.Image = pipe(photograph, mask, blend="poisson" if blend else "none")
            return completed
        except (ValueError, MemoryError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    demo: gr.Blocks
    with gr.Blocks(title="Image completion") as demo:
        gr.Markdown("# Image completion\nPaint over what should go from a photograph; the rest of it stays as it is.")
        with gr.Row():
            brush = gr.Brush(default_size=24, colors=["#ff4040"], color_mode="fixed")
            drawing = gr.ImageEditor(type="pil", label="Photograph", brush=brush, layers=False, transforms=())
            completed = gr.Image(type="pil", format="png", label="Completed")
        blend = gr.Checkbox(True, label="Blend the fill into its surroundings")
        gr.Button("Complete", variant="primary").click(complete, [drawing, blend], completed, api_name="complete")
    return demo
