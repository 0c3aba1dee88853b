"""Training of the networks (sec. 3.4), on Hugging Face Accelerate."""

from glcic_hub.training.recipe import Recipe
from glcic_hub.training.trainer import train

__all__ = ["Recipe", "train"]
