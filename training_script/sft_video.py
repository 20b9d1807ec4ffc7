"""Train supervised: python training_script/sft_video.py --config configs/sft_world.yaml; `marc.training.run_sft`."""

from marc.training.run_sft import main

if __name__ == "__main__":
    main()
