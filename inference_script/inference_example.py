"""Ask a question about a video, in a few lines that can be copied.

Run: python inference_script/inference_example.py [VIDEO] [QUESTION] [--model NAME]
Without a video it makes a sample of generated scenes in the current folder and asks about that.
"""

import argparse

from marc import VideoAssistant
from marc.memory import MemoryOptions
from marc.world.export import write_sample


def make_sample() -> str:
    """Writes a video of generated scenes; its questions and answers go beside it as ``sample.json``."""
    write_sample("sample.mp4")
    return "sample.mp4"


def main() -> None:
    """Answers one question and says what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", help="a video file")
    parser.add_argument("question", nargs="?", default="How many scenes are there?")
    parser.add_argument(
        "--model", default="tiny", help="'tiny', a folder, or a name such as Qwen/Qwen2.5-VL-3B-Instruct"
    )
    parser.add_argument("--no-memory", action="store_true", help="sample the whole video evenly")
    arguments = parser.parse_args()

    video = arguments.video or make_sample()
    memory = None if arguments.no_memory else MemoryOptions()
    assistant = VideoAssistant.from_pretrained(arguments.model, memory=memory)
    answer = assistant.ask(video, arguments.question)
    print(f"{arguments.question} {answer.answer}")
    print(f"{answer.frames} frames, {answer.visual_tokens_before} -> {answer.visual_tokens_after} visual tokens")
    print(f"{answer.seconds['total']:.2f} s")


if __name__ == "__main__":
    main()
