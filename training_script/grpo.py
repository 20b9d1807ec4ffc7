"""Train with C-GRPO: python training_script/grpo.py --config configs/grpo_world.yaml; see `marc.training.run`."""

from marc.training.run import run_grpo

if __name__ == "__main__":
    run_grpo()
