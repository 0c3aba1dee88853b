"""The three networks of the paper, row for row with its tables."""

from glcic_hub.networks.completion import CompletionNetwork
from glcic_hub.networks.discriminators import ContextDiscriminator
from glcic_hub.networks.folding import fold_batch_norm

__all__ = ["CompletionNetwork", "ContextDiscriminator", "fold_batch_norm"]
