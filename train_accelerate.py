"""`accelerate launch train_accelerate.py --data PHOTOS --output RUN`: arguments and nothing else."""

import sys

from glcic_hub.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
