"""The demo as a Space on the Hub: what is uploaded, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from glcic_hub.hub.card import CARD_FILE, LICENSE_FILES
from glcic_hub.hub.model_files import DEFAULT_MODEL, PACKAGED
from glcic_hub.hub.transfer import check_card, make_repository, push_folder

SPACE_PYTHON, SPACE_TORCH = "3.10.13", "2.8.0"
"""What CPU Spaces and ZeroGPU both offer: https://huggingface.co/docs/hub/spaces-zerogpu lists few versions."""

SPACE_APP = '''"""The demo, on this machine or as a Space on the Hub; takes --host, --port, --model and --share."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

HERE = Path(__file__).parent

# A Space installs what the package needs and not the package: its C++ is compiled here, at the first start.
if not any((HERE / "glcic_hub" / "completion" / f"_exemplars{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
    failed = subprocess.call([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=HERE)
    if failed:
        sys.exit(failed)

from glcic_hub.cli.main import main  # noqa: E402

sys.exit(main(["demo", *sys.argv[1:]], script="app.py"))
'''
"""As in the repository, like the next two; an installed package does not have these files."""

SPACE_SETUP = '''"""Compiles the exemplar stage's inner loops, and gives README.md's links in full, for PyPI."""

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
                f"cannot compile {ext.sources[0]}: {error}\\nglcic-hub from source needs a compiler for C++17 "
                "(Debian: apt-get install g++; macOS: xcode-select --install; Windows: Visual Studio's Build Tools)."
            ) from None


REPOSITORY = "https://github.com/glcic-hub/glcic-hub"


def readme() -> str:
    """Reads README.md, with the addresses of files and images beside it in full."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\\[[^]]*\\]\\()(?!https?:)", rf"\\1{REPOSITORY}/raw/main/", text)
    return re.sub(r"(\\]\\()(?!https?:|#)", rf"\\1{REPOSITORY}/blob/main/", text)


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
'''

BUILD_REQUIREMENTS = ("pybind11>=2.12", "setuptools>=77")

SPACE_README = """---
title: Image completion
emoji: 🩹
colorFrom: gray
colorTo: green
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
license: other
license_name: research-only
license_link: LICENSE
short_description: Paint over what should go, and it is filled in
tags:
- image-completion
- inpainting
- glcic
---

# Image completion

Paint over what should go from a photograph; it is filled in, and all else stays as it was, bit for bit. By *Globally
and Locally Consistent Image Completion* (Iizuka, Simo-Serra and Ishikawa, SIGGRAPH 2017), with glcic-hub {version}.

Python {python}, PyTorch {torch} and Gradio {gradio} are versions that CPU Spaces and
[ZeroGPU](https://huggingface.co/docs/hub/spaces-zerogpu) both offer: the hardware can be changed in the settings.

On a machine of your own, with Python {python_minor}: `pip install -r requirements.txt gradio=={gradio}`, then
`python app.py`. The first start compiles a part and needs a C++ compiler.

The weights have a [license](LICENSE) of their own; the code is under
[Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0).
"""


def write_space(folder: Path) -> None:
    """Writes what a Gradio Space needs: its README with metadata, requirements, `app.py`, this package and `setup.py`.

    Python and PyTorch are versions that CPU Spaces and ZeroGPU both offer; all else has the versions that are
    installed here, or the newest before them where these need a newer Python. Compiled modules stay behind, as the
    Space may be of another kind: `app.py` compiles them there, with the compiler that `packages.txt` asks for.

    Args:
        folder: Existing.

    Raises:
        ModuleNotFoundError: gradio is not installed, whose version the Space is to have.
        OSError: The folder cannot be written.
    """
    import gradio

    needed = [Requirement(line) for line in metadata.requires("glcic-hub") or ()]
    pins = sorted(_pin(requirement) for requirement in needed if requirement.marker is None)
    readme = SPACE_README.format(
        gradio=gradio.__version__,
        version=metadata.version("glcic-hub"),
        python=SPACE_PYTHON,
        python_minor=SPACE_PYTHON.rpartition(".")[0],
        torch=SPACE_TORCH,
    )
    (folder / CARD_FILE).write_text(readme, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join([*pins, *BUILD_REQUIREMENTS]) + "\n", encoding="utf-8")
    shutil.copy(PACKAGED / DEFAULT_MODEL / LICENSE_FILES[0], folder)
    (folder / "packages.txt").write_text("g++\n", encoding="utf-8")
    (folder / "app.py").write_text(SPACE_APP, encoding="utf-8")
    (folder / "setup.py").write_text(SPACE_SETUP, encoding="utf-8")
    package = Path(__file__).parent.parent
    shutil.copytree(package, folder / "glcic_hub", ignore=shutil.ignore_patterns("__pycache__", ".*", "*.so", "*.pyd"))


def _pin(requirement: Requirement) -> str:
    """Says which version of a package a Space takes."""
    name = requirement.name
    if name == "torch":
        return f"torch=={SPACE_TORCH}"
    version = metadata.version(name)
    runs = SpecifierSet(metadata.metadata(name)["Requires-Python"] or "").contains(SPACE_PYTHON)
    return f"{name}=={version}" if runs else f"{name}<={version},{requirement.specifier}"


def push_space(
    name: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    commit_message: str = "The demo of glcic-hub",
) -> str:
    """Makes a Gradio Space of the demo, or brings it up to date, in one commit.

    Args:
        name: `user/name`, or `name` for one of your own.
        private: Of a new Space; None takes the account's default.
        token: None takes the one of `hf auth login` or `HF_TOKEN`.
        create_pr: Propose the commit as a pull request.
        commit_message: Its first line.

    Returns:
        The address of the commit.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        ValueError: `name` is not a name, or the Hub refuses the README's metadata.
        PermissionError: There is no token, or it is refused.
        OSError: The Hub cannot be reached or fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        write_space(Path(temporary))
        check_card((Path(temporary) / CARD_FILE).read_text(encoding="utf-8"), name, kind="space")
        repository = make_repository(name, kind="space", private=private, token=token)
        return push_folder(
            Path(temporary),
            repository,
            commit_message,
            kind="space",
            token=token,
            create_pr=create_pr,
            replaces=["*"],
        )
