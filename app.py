"""The demo, on this machine or as a Space on the Hub; takes --host, --port, --model and --share."""

import sys

from glcic_hub.cli import main

sys.exit(main(["demo", *sys.argv[1:]]))
