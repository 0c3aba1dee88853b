"""Globally and Locally Consistent Image Completion (Iizuka, Simo-Serra and Ishikawa, SIGGRAPH 2017)."""

from glcic_hub.config import GLCICConfig
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.version import __version__

__all__ = ["GLCICConfig", "GLCICPipeline", "__version__"]
