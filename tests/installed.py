"""Checks an installed package without its repository: `make wheel-test` runs it in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np

import glcic_hub
from glcic_hub import GLCICPipeline
from glcic_hub.images.samples import SAMPLES, load_sample

EXTRAS = {"accelerate", "datasets", "gradio", "matplotlib", "onnx", "pyamg", "skimage"}
"""Packages that completing an image does not need."""

# Weights, samples and the compiled part come with the package.
assert Path(glcic_hub.__file__).is_relative_to(sys.prefix), glcic_hub.__file__
pipe = GLCICPipeline.from_pretrained()
image, mask = load_sample("coffee")
completed = pipe(image, mask)
known = np.asarray(mask) == 0
assert np.array_equal(np.asarray(completed)[known], np.asarray(image)[known])
assert not np.array_equal(np.asarray(completed), np.asarray(image))
assert not (EXTRAS & sys.modules.keys()), EXTRAS & sys.modules.keys()

# The command works, too, and says which extra has what is missing.
with tempfile.TemporaryDirectory() as folder:
    for name in SAMPLES:
        command = [sys.executable, "-m", "glcic_hub", "complete", "--sample", name, "-o", f"{folder}/{name}.png"]
        subprocess.run(command, check=True)
    pipe.save_pretrained(Path(folder) / "model")
    assert {"README.md", "config.json", "model.safetensors"} <= {path.name for path in Path(folder, "model").iterdir()}
    evaluation = subprocess.run(
        [sys.executable, "-m", "glcic_hub", "evaluate", folder], capture_output=True, text=True, check=False
    )
    assert evaluation.returncode == 1 and 'pip install "glcic-hub[evaluate]"' in evaluation.stderr, evaluation.stderr
print(f"glcic-hub {metadata.version('glcic-hub')} works on Python {sys.version.split()[0]}")
