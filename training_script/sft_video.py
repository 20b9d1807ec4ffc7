"""Train supervised: python training_script/sft_video.py --config configs/sft_world.yaml; `marc.training.sft_video`."""

from marc.training.sft_video import main

if __name__ == "__main__":
    main()
