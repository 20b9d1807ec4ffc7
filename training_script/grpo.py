"""Train with C-GRPO: python training_script/grpo.py --config configs/grpo_world.yaml; see `marc.training.grpo`."""

from marc.training.grpo import main

if __name__ == "__main__":
    main()
