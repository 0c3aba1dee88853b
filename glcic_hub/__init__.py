"""Globally and Locally Consistent Image Completion (Iizuka, Simo-Serra and Ishikawa, SIGGRAPH 2017)."""

from typing import TYPE_CHECKING, Any

from glcic_hub.version import __version__

if TYPE_CHECKING:
    from glcic_hub.config import GLCICConfig
    from glcic_hub.pipeline import GLCICPipeline

__all__ = ["GLCICConfig", "GLCICPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for at its first use, so that `glcic --help` need not wait for PyTorch (PEP 562)."""
    if name == "GLCICConfig":
        from glcic_hub.config import GLCICConfig

        return GLCICConfig
    if name == "GLCICPipeline":
        from glcic_hub.pipeline import GLCICPipeline

        return GLCICPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names."""
    return __all__
