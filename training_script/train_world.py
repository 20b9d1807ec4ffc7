"""Train the embedded model of the micro-world from scratch; the same as ``marc world train``.

python training_script/train_world.py OUTPUT --config configs/world_tiny.yaml
"""

import sys

from marc.cli.checkout import from_checkout

if __name__ == "__main__":
    from_checkout("experiments.commands").main(["train", *sys.argv[1:]])
