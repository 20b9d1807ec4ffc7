"""Train with C-GRPO: python training_script/grpo.py --config configs/grpo_world.yaml; see `marc.training.run_grpo`."""

from marc.training.run_grpo import main

if __name__ == "__main__":
    main()
