"""Train the tower: python training_script/tower.py --config configs/tower_world.yaml; see `marc.training.run`."""

from marc.training.run import run_tower

if __name__ == "__main__":
    run_tower()
