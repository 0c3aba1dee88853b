"""From a hole to its fill."""
