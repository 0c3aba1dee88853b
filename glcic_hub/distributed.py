"""Several processes, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from datetime import timedelta

from accelerate import Accelerator, InitProcessGroupKwargs

LONGEST_WAIT = timedelta(weeks=4)
"""Time that a process waits for the slower ones."""


def join_processes() -> Accelerator:
    """Joins the other processes if `accelerate launch` started several; gives this one's place and device.

    Raises:
        ValueError: There are several, and they cannot be joined.
    """
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
    if accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("several processes, and no GPUs; with ACCELERATE_USE_CPU=true they share the CPU")
    return accelerator
