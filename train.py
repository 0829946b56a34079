"""Trains as a config file says: `python train.py --config configs/classification/digits.py`."""

import sys

from jaxvision.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
