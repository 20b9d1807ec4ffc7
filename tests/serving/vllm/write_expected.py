"""Writes what transformers' engine answers: checkpoints, requests and outputs for the tests in vLLM's environment.

Run by the main environment's Python, whose transformers is another: ``write_expected.py FOLDER``.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_models import builder, make_loud, save_stock  # noqa: E402

from marc import VideoAssistant  # noqa: E402
from marc.data.prompts import message_about, render_question  # noqa: E402
from marc.data.rows import parse_row  # noqa: E402
from marc.inference.encoding import encode  # noqa: E402
from marc.inference.hf import HFBackend, complete  # noqa: E402
from marc.inference.prompts import Prompt  # noqa: E402
from marc.inference.video_input import VideoInput, VisualPatches, feature_inputs, grid_inputs  # noqa: E402
from marc.inference.vllm_items import planned_item  # noqa: E402
from marc.io import write_json  # noqa: E402
from marc.model.export import export_model  # noqa: E402
from marc.model.loading import EMBEDDED_FOLDER, load_model  # noqa: E402
from marc.model.modeling import token_types  # noqa: E402
from marc.training.reader import VisualReader  # noqa: E402
from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions, teacher_accuracies  # noqa: E402
from marc.types import GenerationOptions  # noqa: E402
from marc.world.export import video_questions, write_sample  # noqa: E402
from marc.world.frames import draw_frames  # noqa: E402
from marc.world.scenes import sample_video  # noqa: E402

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
NEW_TOKENS = 24
VIDEOS, QUESTIONS = 4, 2
FEW = 16
"""Prompts of an exported model: about one video, at each budget."""
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"target_frames": None},
    {"target_frames": 2},
    {"visual_tokens": 3},
    {"tower_layer": 1},
    {"layout": "frames", "target_frames": 2},
    {"layout": "frames", "target_frames": 2, "tower_layer": ((1, 4),)},
    {"duplicates": 0.1},
)
"""How videos are compressed, each video in every way."""
BUDGETS = (None, "frames:2", "full")


@dataclass(frozen=True)
class Case:
    """A prompt and its output.

    Attributes:
        ids: Token ids with a placeholder for each video.
        shown: Which items it shows.
        tokens: The greedy output.
        logprobs: Of each token of it.
    """

    ids: tuple[int, ...]
    shown: tuple[int, ...]
    tokens: list[int]
    logprobs: list[float]


@torch.no_grad()
def logprobs(model: Any, prompt: Prompt, output: Sequence[int]) -> list[float]:
    """Log-probabilities of an output's tokens, prompt and output read in one pass."""
    start = prompt.expanded(model)
    ids = torch.tensor([[*start, *output]])
    features = {each: each.features for each in prompt.inputs}
    model.compression = prompt.inputs[0].compression
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=token_types(ids, model),
        mm_encoder_outputs=feature_inputs([prompt.inputs], features),
        **grid_inputs([prompt.inputs]),
    ).logits[0, len(start) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(output)[:, None])[:, 0].tolist()


def world_prompts(processor: Any, style: str) -> list[Prompt]:
    """Questions about videos, each at every budget, and one about two videos."""
    prompts = []
    for index in range(VIDEOS):
        video = sample_video("easy", "test", 0, index)
        patches = VisualPatches.of_frames(processor, draw_frames(video), video.event_of_frame[::2])
        events = len(set(patches.events or ()))
        for changes in CHANGES:
            budget = replace(processor.compression, **changes)
            shares = tuple(range(1, events + 1)) if changes == {"target_frames": 2} and events <= 3 else None
            shown = VideoInput.of(patches, processor, budget, shares=shares)
            for question in video_questions(video, "test", 0, index, QUESTIONS):
                prompts.append(prompt_about(processor, [shown], question.text, style))
    twice = [prompts[0].inputs[0], prompts[-1].inputs[0]]
    twice = [replace_compression(each, processor) for each in twice]
    return [*prompts, prompt_about(processor, twice, "What happens first?", style)]


def replace_compression(video: VideoInput, processor: Any) -> VideoInput:
    """A video at the model's own budget."""
    return VideoInput.of(video.patches, processor, processor.compression)


def prompt_about(processor: Any, shown: Sequence[VideoInput], question: str, style: str) -> Prompt:
    """A question about videos."""
    messages = message_about([("video", "")] * len(shown), render_question(question, style=style))
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    return Prompt(tuple(processor.tokenizer(text, add_special_tokens=False)["input_ids"]), tuple(shown))


def write_cases(folder: Path, model: Any, prompts: Sequence[Prompt]) -> None:
    """Answers prompts one by one, and keeps what goes in and what comes out."""
    inputs = list(dict.fromkeys(each for prompt in prompts for each in prompt.inputs))
    items = {
        f"{number}/{name}": value for number, each in enumerate(inputs) for name, value in planned_item(each).items()
    }
    for each in inputs:
        model.compression = each.compression
        each.features = encode(model, [each])[each]
    cases = []
    for prompt in prompts:
        [tokens] = complete(model, [prompt], max_new_tokens=NEW_TOKENS, do_sample=False)
        shown = tuple(inputs.index(each) for each in prompt.inputs)
        cases.append(asdict(Case(prompt.ids, shown, tokens, logprobs(model, prompt, tokens))))
    save_file({name: value.clone() for name, value in items.items()}, folder / "items.safetensors")
    write_json(folder / "cases.json", cases)


def write_answers(folder: Path) -> None:
    """What the embedded model answers about a video file."""
    sample = folder / "sample.mp4"
    rows = json.loads(write_sample(sample).read_text())["questions"]
    write_json(folder / "taught.json", teachers_accuracies(folder, rows))
    questions = ["What happens in the plain scene?", "How many scenes are there?"]
    answers = []
    for budget in BUDGETS:
        assistant = VideoAssistant.from_pretrained(
            memory=None,
            device="cpu",
            compression={} if budget is None else {"budget": budget},
            generation=GenerationOptions(max_new_tokens=NEW_TOKENS),
        )
        prompts = [render_question(question, style=assistant.prompt_style) for question in questions]
        outputs = [answer.output for answer in assistant.ask_many(sample, questions)]
        answers.append({"budget": budget, "questions": questions, "prompts": prompts, "outputs": outputs})
    write_json(folder / "answers.json", answers)
    write_json(folder / "mixed.json", mixed_answers(folder))


def teachers_accuracies(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows, and how right the embedded model's greedy answers from every token are."""
    engine = HFBackend(*load_model(device="cpu", target_frames=None))
    options = TeacherOptions(samples=1, temperature=0.0, max_new_tokens=NEW_TOKENS)
    reader, cache = VisualReader(engine.processor), TeacherCache(folder / "teacher")
    grader = TeacherGrader(lambda: nullcontext(engine), reader, options, cache, "hf")
    taught = teacher_accuracies([parse_row(row) for row in rows], folder, grader)
    return {"rows": rows, "new_tokens": NEW_TOKENS, "a_full": [row.a_full for row in taught]}


def mixed_answers(folder: Path) -> list[dict[str, Any]]:
    """What the embedded model answers about a picture, and about pictures and a video together."""
    picture, sample = folder / "picture.png", folder / "sample.mp4"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)).save(picture)
    generation = GenerationOptions(max_new_tokens=NEW_TOKENS)
    assistant = VideoAssistant.from_pretrained(memory=None, device="cpu", generation=generation)
    shown = ([picture], [picture, sample], [sample, picture, picture])
    return [
        {"shown": [each.name for each in files], "output": assistant.ask(files, "What is shown?").output}
        for files in shown
    ]


def write_exports(folder: Path) -> None:
    """What `marc export` makes: of the embedded model with adapters, and plainly of one with random weights."""
    adapters, random = folder / "adapters", folder / "random"
    model, processor = load_model(device="cpu")
    lora = LoraConfig(r=2, target_modules=model.family.language_linears, init_lora_weights=False)
    for part in (get_peft_model(model, lora), processor):
        part.save_pretrained(adapters)
    for part in builder("qwen2_5_vl")():
        part.save_pretrained(random)
    for name, plain in ((adapters, False), (random, True)):
        own = folder / ("plain" if plain else "whole")
        export_model(str(name), own / "checkpoint", plain=plain)
        model, processor = load_model(name, device="cpu")
        write_cases(own, model, world_prompts(processor, model.config.prompt_style)[:FEW])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world, stock = folder / "world", folder / "stock"
    for each in (world, *(stock / family for family in FAMILIES)):
        each.mkdir(parents=True)
    model, processor = load_model(device="cpu")
    (world / "checkpoint").symlink_to(EMBEDDED_FOLDER)
    write_cases(world, model, world_prompts(processor, model.config.prompt_style))
    write_answers(world)
    for family in FAMILIES:
        model, processor = builder(family)()
        if hasattr(model.model.visual, "deepstack_merger_list"):
            make_loud(model)
        save_stock(stock / family / "checkpoint", model, processor)
        write_cases(stock / family, model, world_prompts(processor, "plain"))
    write_exports(folder / "exported")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
