"""The demo, on this machine or as a Space on the Hub; takes --host, --port, --model and --share."""

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
