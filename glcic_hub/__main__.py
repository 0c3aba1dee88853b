"""`python -m glcic_hub`, the same as `glcic`."""

import sys

from glcic_hub.cli.main import main

sys.exit(main())
