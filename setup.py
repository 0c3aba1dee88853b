"""Compiles the exemplar stage's inner loops, and gives README.md's links in full, for PyPI."""

import re
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, PlatformError


class BuildOrExplain(build_ext):
    """Says what to install where the compiler is missing or too old."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles one module."""
        try:
            super().build_extension(ext)
        except (CCompilerError, PlatformError, OSError) as error:
            raise PlatformError(
                f"cannot compile {ext.sources[0]}: {error}\nglcic-hub from source needs a compiler for C++17 "
                "(Debian: apt-get install g++; macOS: xcode-select --install; Windows: Visual Studio's Build Tools)."
            ) from None


REPOSITORY = "https://github.com/glcic-hub/glcic-hub"


def readme() -> str:
    """Reads README.md, with the addresses of files and images beside it in full."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{REPOSITORY}/raw/main/", text)
    return re.sub(r"(\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", text)


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildOrExplain},
    ext_modules=[
        # Without fused multiply-add, so that the result is the same on every machine.
        Pybind11Extension(
            "glcic_hub.completion._exemplars",
            ["glcic_hub/completion/_exemplars.cpp"],
            cxx_std=17,
            extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-pthread"],
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        )
    ],
)
