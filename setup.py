"""Compiles the exemplar stage's inner loops; all else about the package is in pyproject.toml."""

import sys

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

setup(
    ext_modules=[
        # Without fused multiply-add, so that the result is the same on every machine.
        Pybind11Extension(
            "glcic_hub._exemplars",
            ["glcic_hub/_exemplars.cpp"],
            cxx_std=17,
            extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-ffp-contract=off"],
        )
    ]
)
