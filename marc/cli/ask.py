"""``marc ask``: a question about videos and pictures, or about all that is remembered, or a file of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.inputs import video_files
from marc.cli.options import Budget, Given, Part, command
from marc.cli.output import echo, echo_json
from marc.cli.setting import Changes, Setting
from marc.cli.verbosity import remark
from marc.compression.config import CompressionConfig
from marc.memory.addresses import is_address
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.options import Named
from marc.types import Clip, GenerationOptions, ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions
from marc.video.times import clock, seconds_of

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant
    from marc.inference.query import Query
    from marc.types import Answer


Style = Annotated[
    str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
]
Watched = Annotated[
    str | None,
    typer.Option(help="About a source that `marc watch` watches: its NAME, or the folder of its memory."),
]


@dataclass(frozen=True)
class StretchOptions:
    """Which part of a video is asked about.

    Attributes:
        start: Where it begins: seconds, or a time such as 1:02:03.5; ``None``: with the video.
        end: Where it ends; ``None``: with the video.
    """

    start: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class ReportOptions:
    """How an answer is reported.

    Attributes:
        as_json: Print one JSON object, as docs/schema.json describes it.
        storyboard: Draw what the model saw into this file.
        pictures: Write a picture of each retrieved event into this folder.
    """

    as_json: Annotated[bool, Named("json")] = False
    storyboard: Path | None = None
    pictures: Path | None = None


@dataclass(frozen=True)
class BatchOptions:
    """Many questions at once.

    Attributes:
        batch: A file of JSON lines with video and question, and with id and options if wanted. A run that was
            interrupted goes on where it stopped.
        output: Where the answers go, a JSON line each; ``None``: BATCH.answers.jsonl.
        retry_failed: Ask again what failed earlier.
    """

    batch: Path | None = None
    output: Path | None = None
    retry_failed: bool = False


@command(
    "ask",
    old={"--frames": "--max-frames", "--timeout": "--video-timeout", "--attention": "--attn-implementation"},
)
def ask(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos and pictures in order: files, folders, patterns, s3://... or @LIST as in `marc remember`."
        ),
    ] = None,
    question: Annotated[str | None, typer.Argument(help="A question in natural language.")] = None,
    *,
    option: Annotated[list[str] | None, typer.Option(help="A possible answer, such as 'A. red'; repeat it.")] = None,
    library: Annotated[
        str | None,
        typer.Option(
            help="--library QUESTION: about all remembered videos; --library WHERE QUESTION: of that library."
        ),
    ] = None,
    watch: Watched = None,
    prompt_style: Style = None,
    no_compression: Annotated[
        bool, typer.Option("--no-compression", help="Read every visual token; the same as --budget full.")
    ] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Sample the whole video evenly.")] = False,
    budget: Budget = None,
    stretch: StretchOptions,
    report: ReportOptions,
    batch: BatchOptions,
    model: ModelOptions,
    compression: Changes,
    frames: FrameOptions,
    subtitles: SubtitleOptions,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    first: Annotated[FirstAnswerOptions, Part(defaults={"wait": False})],
    generation: GenerationOptions,
    given: Given,
) -> None:
    """Answer a question about videos and pictures, and report what it cost."""
    _refuse_what_is_void(given, no_compression, generation, batch)
    setting = Setting.of(
        given,
        model=model,
        compression=compression,
        budget="full" if no_compression else budget,
        frames=frames,
        subtitles=subtitles,
        memory=None if no_memory else memory,
        retrieval=retrieval,
        generation=generation,
        prompt_style=prompt_style,
        first=first,
    )
    if batch.batch is not None:
        _answer_batch(setting, videos or question, batch)
    elif watch is not None:
        _answer_watched(setting, (watch, videos, question), option or [], stretch, report)
    elif library is not None:
        given.refuse_beside("--library", True, StretchOptions, FirstAnswerOptions, "scope")
        _answer_from_library(setting, (library, videos, question), option or [], report)
    else:
        _answer_one(setting, (videos, question), option or [], stretch, report)


def _refuse_what_is_void(
    given: Given, no_compression: bool, generation: GenerationOptions, batch: BatchOptions
) -> None:
    """Refuses options that leave others nothing to do."""
    given.refuse_beside("--no-compression", no_compression, "budget", CompressionConfig)
    given.refuse_beside("greedy decoding (--temperature 0)", generation.temperature == 0, "top_p", "seed")
    of_one = ("library", "watch", "option", FirstAnswerOptions, StretchOptions, ReportOptions)
    given.refuse_beside("--batch", batch.batch is not None, *of_one)
    given.refuse_beside("a single question", batch.batch is None, "output", "retry_failed")
    beside = ("library", "pictures", "no_memory", "scope", FirstAnswerOptions)
    given.refuse_beside("--watch", "watch" in given.names, *beside)


def _answer_one(
    setting: Setting,
    asked: tuple[list[str] | None, str | None],
    options: Sequence[str],
    stretch: StretchOptions,
    report: ReportOptions,
) -> None:
    from marc.cli.progress import share_bar

    clips, question = _clips(*asked, stretch)
    _check_report(report)
    check_files(clips, setting.frames.timeout)
    with share_bar(f"cutting {Path(clips[0].source).name} into events") as progress:
        assistant = setting.load(progress)
        answer = _show(assistant, assistant.query(clips, question, options=options), report)
        if not setting.first.background:
            _remember_what_was_new(assistant, answer)


def _answer_from_library(
    setting: Setting,
    asked: tuple[str, list[str] | None, str | None],
    options: Sequence[str],
    report: ReportOptions,
) -> None:
    from marc.cli.memory import default_library

    library, videos, question = asked
    if videos:
        raise ValueError(f"--library asks about all remembered videos, not about {', '.join(videos)}; leave one out")
    if question is None:
        library, question = str(default_library()), library
    _check_question(question)
    _check_report(report)
    from marc.memory.library import MemoryLibrary

    shelf = MemoryLibrary(library)
    shelf.check_there()
    assistant = setting.load()
    _show(assistant, assistant.library_query(shelf, question, options=options), report, is_recalled=True)


def _answer_watched(
    setting: Setting,
    asked: tuple[str, list[str] | None, str | None],
    options: Sequence[str],
    stretch: StretchOptions,
    report: ReportOptions,
) -> None:
    from marc.memory.live import StoredWatch, find_watch

    name, videos, question = asked
    if videos or question is None:
        raise ValueError('a watched source and a question are needed: marc ask --watch NAME "QUESTION"')
    _check_question(question)
    _check_report(report)
    source = StoredWatch(find_watch(name))
    source.snapshot()
    start, end = times_of(stretch)
    assistant = setting.load()
    _show(assistant, assistant.query(source, question, options=options, start=start, end=end), report)


def _answer_batch(setting: Setting, beside: object, batch: BatchOptions) -> None:
    from marc.cli.progress import share_bar
    from marc.inference.batch import BatchAnswers, answer_all, read_questions

    if beside:
        raise ValueError("--batch has videos and questions of its own; leave those behind the command out")
    assert batch.batch is not None
    setting = replace(setting, first=FirstAnswerOptions())  # whatever is killed and goes on, answers are the same
    questions = read_questions(batch.batch)
    answers = BatchAnswers(
        batch.output or batch.batch.with_suffix(".answers.jsonl"), setting.identity, batch.retry_failed
    )
    left = answers.open(questions)
    failed = 0
    if left:
        with share_bar(f"answering {len(left)} of {len(questions)} questions") as progress:
            for done, (question, problem) in enumerate(answer_all(setting.load(), left, answers), 1):
                progress(done / len(left))
                failed += bool(problem)
                if problem:
                    echo(f"marc ask: question {question.id}: {problem}", err=True)
    echo(f"{answers.file}: {len(left) - failed} answered, {len(questions) - len(left)} before, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _show(assistant: VideoAssistant, query: Query, report: ReportOptions, *, is_recalled: bool = False) -> Answer:
    """Asks, and reports what came back."""
    from marc.records import AnswerRecord, as_json

    ((answer, seen),) = assistant.answer_and_show([query])
    if report.storyboard is not None:
        from marc.inference.storyboard import save_storyboard

        save_storyboard(report.storyboard, query.question, answer, seen)
    pictures: list[str] = []
    if report.pictures is not None:
        from marc.inference.citations import save_citations

        pictures = [str(file) for file in save_citations(report.pictures, answer)]
        for file in pictures:
            remark(f"marc ask: {file}")
    for warning in answer.warnings:
        remark(f"marc ask: {warning}")
    if report.as_json:
        echo_json(as_json(AnswerRecord.of(answer, pictures)))
    else:
        echo(_as_text(answer, is_recalled or len(answer.videos) > 1))
    return answer


def _remember_what_was_new(assistant: VideoAssistant, answer: Answer) -> None:
    """Makes the memory of what was answered without one; the answer has been told."""
    for shown in answer.videos:
        if shown.memory == "coarse":
            remark(f"marc ask: remembering {shown.source} for the next question; Ctrl-C leaves that to it")
            assistant.remember(shown.source)


def _clips(
    videos: Sequence[str] | None, question: str | None, stretch: StretchOptions
) -> tuple[tuple[Clip, ...], str]:
    """What is asked about, and the question."""
    if not videos or question is None:
        raise ValueError(
            f"a video and a question are needed, got only {question!r}"
            if question
            else 'name a video and a question: marc ask VIDEO "QUESTION"; or --batch FILE, or --library "QUESTION"'
        )
    _check_question(question)
    return clips_of(videos, stretch), question


def clips_of(videos: Sequence[str], stretch: StretchOptions) -> tuple[Clip, ...]:
    """What arguments and options name.

    Raises:
        ValueError: If they name no video, or times of several.
    """
    files = _on_this_machine(video_files(videos, with_pictures=True))
    if len(files) > 1 and (stretch.start or stretch.end):
        raise ValueError("--start and --end are for one video; of several, put the times into a file for --batch")
    start, end = times_of(stretch)
    return tuple(Clip(file, start or 0.0, end) for file in files)


def _on_this_machine(videos: Sequence[str]) -> list[str]:
    """The files themselves, and copies of those that are objects of a store."""
    addresses = list(filter(is_address, videos))
    if not addresses:
        return list(videos)
    from marc.memory.objects import kept

    copies = dict(zip(addresses, kept(addresses), strict=True))
    return [str(copies.get(video, video)) for video in videos]


def times_of(stretch: StretchOptions) -> tuple[float | None, float | None]:
    """Where a stretch begins and ends, in seconds.

    Raises:
        ValueError: If that is no stretch.
    """
    start = None if stretch.start is None else seconds_of(stretch.start, "--start")
    end = None if stretch.end is None else seconds_of(stretch.end, "--end")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"--end {end:g} must be behind --start {start or 0:g}")
    return start, end


def _check_question(question: str) -> None:
    if not question.strip():
        raise ValueError("the question is empty")


def _check_report(report: ReportOptions) -> None:
    """Refuses a report that could not be written, before there is anything to write."""
    if report.storyboard is not None:
        from marc.inference.storyboard import check_storyboard

        check_storyboard(report.storyboard)
    if report.pictures is not None and report.pictures.exists() and not report.pictures.is_dir():
        raise ValueError(f"--pictures {report.pictures}: a file stands there; name a folder")


def check_files(clips: Sequence[Clip], timeout: float) -> None:
    """Refuses files that cannot be read, before a model is loaded.

    Raises:
        ValueError: Naming the first.
    """
    from marc.video import probe
    from marc.video.pictures import is_picture, picture_size

    for clip in clips:
        if is_picture(clip.source, timeout=timeout):
            picture_size(clip.source, timeout=timeout)
        else:
            duration = probe(clip.source, timeout=timeout).duration
            if clip.start >= duration:
                raise ValueError(
                    f"{clip.source}: --start {clip.start:g} is behind the end of this {duration:.2f} s video"
                )


def _as_text(answer: Answer, named_videos: bool) -> str:
    budget = "" if answer.visual_tokens_budget is None else f" of a budget of {answer.visual_tokens_budget}"
    spoken = sum(shown.subtitle_tokens for shown in answer.videos)
    lines = [
        answer.answer or "(the model gave no answer)",
        "",
        f"frames read      {answer.frames}",
        f"visual tokens    {answer.visual_tokens_before} -> {answer.visual_tokens_after}{budget}",
        f"prompt tokens    {answer.prompt_tokens_before} -> {answer.prompt_tokens_after}"
        + (f" and {spoken} of subtitles" if spoken else ""),
        *_as_citations(answer, named_videos),
        *(["question         about all of the video"] if any(each.scope == "all" for each in answer.videos) else []),
        *(["memory           coarse"] if any(shown.memory == "coarse" for shown in answer.videos) else []),
        *_as_thoughts(answer),
        "seconds          " + ", ".join(f"{name} {value:.3f}" for name, value in answer.seconds.items()),
        f"peak memory      {answer.peak_memory_bytes / 2**20:.0f} MiB",
    ]
    return "\n".join(lines)


def _as_thoughts(answer: Answer) -> list[str]:
    """What came of the bare answer, where it was asked for first."""
    if answer.probability is None:
        return []
    then = "thought about" if answer.has_thought else "taken"
    generated = "" if answer.generated_tokens is None else f", {answer.generated_tokens} tokens generated"
    return [f"bare answer      {then} at a probability of {answer.probability:.3f}{generated}"]


def _as_citations(answer: Answer, named_videos: bool) -> list[str]:
    """The retrieved events, with their videos where these are not clear."""
    if not named_videos:
        scored = zip(answer.events, answer.scores, strict=True)
        found = ", ".join(f"{event.start:.1f}-{event.end:.1f} s ({score:.2f})" for event, score in scored)
        return [f"events retrieved {found}"] if found else []
    lines = []
    for shown in answer.videos:
        for event, score in zip(shown.events, shown.scores, strict=True):
            lines.append(f"event retrieved  {shown.source} {clock(event.start)}-{clock(event.end)} ({score:.2f})")
    return lines
