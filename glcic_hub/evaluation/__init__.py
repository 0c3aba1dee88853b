"""Measures completion next to baselines: metrics, methods, holes, the run over photographs, reports, a user study."""
