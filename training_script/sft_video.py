"""Train supervised: python training_script/sft_video.py --config configs/sft_world.yaml; see `marc.training.run`."""

from marc.training.run import run_sft

if __name__ == "__main__":
    run_sft()
