"""Train the embedded model of the micro-world from scratch; the same as ``marc world train``.

python training_script/train_world.py OUTPUT --config configs/world_tiny.yaml
"""

import typer

from marc.cli.world import train

if __name__ == "__main__":
    typer.run(train)
