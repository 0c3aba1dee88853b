"""A process of its own that loads from the Hub and pushes to it: a request on each line, and an answer."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch

from glcic_hub import GLCICPipeline
from glcic_hub.publish import push_model
from tests.conftest import make_hole, make_photo


def digests(pipe: GLCICPipeline) -> dict[str, str]:
    """Of the weights, and of an image completed with them."""
    weights = b"".join(tensor.numpy().tobytes() for tensor in pipe.network.state_dict().values())
    completed = pipe(make_photo(46, 61), make_hole(46, 61))
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "image": hashlib.sha256(completed.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        push_to = request.pop("push_to", None)
        options = request.pop("push_options", {})
        folder, save_to = request.pop("push_folder", None), request.pop("save_to", None)
        try:
            if folder:
                print(json.dumps({"address": push_model(Path(folder), push_to, **options)}), flush=True)
                continue
            pipe = GLCICPipeline.from_pretrained(device="cpu", dtype=torch.float32, **request)
            if save_to:
                answer = {"address": str(pipe.save_pretrained(save_to, push_to_hub=True, repo_id=push_to, **options))}
            else:
                answer = {"address": pipe.push_to_hub(push_to, **options)} if push_to else digests(pipe)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
