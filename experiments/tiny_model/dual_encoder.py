"""A tiny image-text encoder for the micro-world, so that the memory retrieves by meaning without a download.

An open_clip model of its own configuration: pictures of 28 x 28 pixels, a word-level tokenizer. Trained on single
frames of events against questions about them; a question fits every event in the batch of which what it says is true.
Its folder is what `marc.memory.EventEmbedder.from_pretrained` reads. Trained and written by
``marc world train-embedder FOLDER``.

Shapes: E events, Q questions, D embedding dimensions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from experiments.tiny_model.tower import draw_pairs, through_a_codec
from marc.memory.embedder import EventEmbedder, save_dual_encoder
from marc.world.questions import ABOUT_ONE_EVENT, WorldQuestion, draw_questions
from marc.world.renderer import render_video
from marc.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZE,
    SPEED,
    WorldVideo,
    sample_video,
    video_rng,
)

CONTEXT_LENGTH = 32
WEIGHTS = dict.fromkeys(ABOUT_ONE_EVENT, 1.0)
"""Of the kinds of questions that are drawn."""


def build_word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per lower-case word of the questions; the end token, where open_clip reads, has the highest id."""
    rng = np.random.default_rng(0)
    words: set[str] = set()
    for index in range(300):
        for question in draw_questions(sample_video("easy", "train", 0, index), rng, 12, choice_rate=0):
            words.update(re.findall(r"\w+|[^\w\s]+", question.text.lower()))
    vocabulary = ["<pad>", "<unk>", "<start>", *sorted(words), "<end>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, vocabulary.index(word)) for word in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    )


def model_config(vocab_size: int) -> dict:
    """open_clip's ``model_cfg``."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 16, "patch_size": 7},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "width": 64,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "marc-world-words",
        },
    }


def build_dual_encoder(seed: int) -> tuple[open_clip.CLIP, HFTokenizer, dict]:
    """The encoder with random weights, its tokenizer and its configuration."""
    words = build_word_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        words.save_pretrained(folder)
        tokenizer = HFTokenizer(folder, context_length=CONTEXT_LENGTH)
    config = model_config(len(words))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=SIZE)))
    return model, tokenizer, config


def event_labels(videos: Sequence[WorldVideo]) -> Tensor:
    """Background, colour, shape and direction of every event of easy videos, ``int64 [E, 4]``."""
    rows = []
    for video in videos:
        for event in video.events:
            item = event.objects[0]
            rows.append(
                (
                    BACKGROUNDS.index(event.background),
                    COLOURS.index(item.colour),
                    SHAPES.index(item.shape),
                    DIRECTIONS.index(item.direction),
                )
            )
    return torch.tensor(rows)


def fits(question: WorldQuestion, labels_E4: Tensor, answer: int) -> Tensor:
    """Which events of a batch look as a question says that its event, number `answer`, does: ``bool [E]``."""
    says = (0,) if question.kind in ("colour", "shape", "direction", "event story") else (1, 2)
    return (labels_E4[:, says] == labels_E4[answer, says]).all(1)


def prepare(frames_EHWC: Tensor) -> Tensor:
    """Normalise frames in [0, 1] as open_clip's transform does: ``[E, 3, H, W]``."""
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    return ((frames_EHWC - mean) / std).permute(0, 3, 1, 2)


def contrastive_loss(image_ED: Tensor, text_QD: Tensor, fits_QE: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions, each row's target spread evenly over all that fits.

    ``L = -1/2 [mean_q mean_{e fits q} log p(e | q) + mean_e mean_{q fits e} log p(q | e)]``
    """
    logits = scale * F.normalize(text_QD, dim=-1) @ F.normalize(image_ED, dim=-1).T
    loss = logits.new_zeros(())
    for scores, target in ((logits, fits_QE), (logits.T, fits_QE.T)):
        rows = target.any(1)
        target = target[rows].float()
        loss = loss - 0.5 * (target * scores[rows].log_softmax(-1)).sum(1).div(target.sum(1)).mean()
    return loss


@dataclass(frozen=True)
class DualEncoderSettings:
    """How the encoder is trained.

    Attributes:
        steps: Training steps.
        videos: Videos of a step.
        learning_rate: Its peak.
        seed: Of everything.
    """

    steps: int = 1500
    videos: int = 48
    learning_rate: float = 2e-3
    seed: int = 0


def train_dual_encoder(
    model: open_clip.CLIP, tokenizer: HFTokenizer, settings: DualEncoderSettings, progress: tqdm
) -> None:
    """Train in place on freshly drawn videos; the progress bar moves by one for each step."""
    steps, rate = settings.steps, settings.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()
    for step in range(1, steps + 1):
        loss = _batch_loss(model, tokenizer, settings, step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
        progress.update()
    model.eval()


def _batch_loss(
    model: open_clip.CLIP,
    tokenizer: HFTokenizer,
    settings: DualEncoderSettings,
    step: int,
    generator: torch.Generator,
) -> Tensor:
    """The loss on the videos of a step; the generator draws how they look."""
    rng = np.random.default_rng((settings.seed, step))
    first = step * settings.videos
    batch = [sample_video("easy", "train", settings.seed, first + index) for index in range(settings.videos)]
    labels = event_labels(batch)
    edges = np.cumsum([0, *(len(video.events) for video in batch)])
    asked = [
        (question, int(edges[index]) + question.event)
        for index, video in enumerate(batch)
        for question in draw_questions(video, rng, 3, weights=WEIGHTS, choice_rate=0)
        if question.event is not None
    ]
    start = torch.randint(SIZE, (len(labels), 2), generator=generator)
    pairs, _ = draw_pairs(labels, start, torch.full((len(labels),), SPEED), generator)
    image = model.encode_image(prepare(through_a_codec(pairs, generator)[:, 0]))
    text = model.encode_text(tokenizer([question.text for question, _ in asked]))
    target = torch.stack([fits(question, labels, event) for question, event in asked])
    return contrastive_loss(image, text, target, model.logit_scale.exp().clamp(max=100))


def recall_at_1(embedder: EventEmbedder, *, seed: int, videos: int, questions: int = 6, frames: int = 3) -> float:
    """How often the nearest event is the one that the question is about, on test videos of two or more events.

    Args:
        embedder: The encoder as the memory loads it.
        seed: Of the test videos.
        videos: Number of videos drawn; those of one event are left out.
        questions: Questions about each.
        frames: Frames that stand for an event, evenly spread.
    """
    hits: list[bool] = []
    for index in range(videos):
        video = sample_video("easy", "test", seed, index)
        if len(video.events) == 1:
            continue
        rng = video_rng("easy", "test", seed, -1 - index)
        pictures = np.array_split(
            render_video(video).numpy(), np.cumsum([2 * event.grids for event in video.events])[:-1]
        )
        spread = [item[np.linspace(0, len(item) - 1, frames + 2)[1:-1].astype(int)] for item in pictures]
        asked = draw_questions(video, rng, questions, weights=WEIGHTS, choice_rate=0)
        text_QD = np.stack([item.vector for item in embedder.embed_questions([question.text for question in asked])])
        nearest = (text_QD @ embedder.embed_events(spread).T).argmax(1)
        hits += [event == question.event for event, question in zip(nearest, asked, strict=True)]
    return sum(hits) / len(hits)


def train_and_save(folder: Path, settings: DualEncoderSettings) -> float:
    """Train the encoder, write it for `EventEmbedder.from_pretrained`, and return its recall on held-out videos."""
    model, tokenizer, config = build_dual_encoder(settings.seed)
    with tqdm(total=settings.steps, desc="dual encoder") as bar:
        train_dual_encoder(model, tokenizer, settings, bar)
    save_dual_encoder(folder, model, config, tokenizer=tokenizer)
    return recall_at_1(EventEmbedder.from_pretrained(folder), seed=settings.seed + 1, videos=300)
