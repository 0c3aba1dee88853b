import numpy as np
from numpy.typing import NDArray

def similar_patches(
    image: NDArray[np.uint8], whole: NDArray[np.uint8], radius: int, apart: int, sweeps: int, /
) -> NDArray[np.int32]: ...
def choose_labels(
    features: NDArray[np.uint8],
    usable: NDArray[np.uint8],
    hole: NDArray[np.uint8],
    visible: NDArray[np.uint8],
    guide: NDArray[np.uint8],
    blurred: NDArray[np.uint8],
    singular: NDArray[np.int32],
    labels: NDArray[np.int32],
    groups: NDArray[np.int32],
    start: NDArray[np.int32],
    reach: int,
    near: int,
    best: int,
    colour: int,
    seam: int,
    guide_weight: int,
    guide_limit: int,
    context: int,
    radius: int,
    threads: int,
    /,
) -> NDArray[np.int32]: ...
def level_seams(
    image: NDArray[np.float32],
    hole: NDArray[np.uint8],
    held: NDArray[np.float32],
    right: NDArray[np.float32],
    down: NDArray[np.float32],
    screen: float,
    sweeps: int,
    /,
) -> None: ...
