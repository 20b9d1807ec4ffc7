"""The main job: a question about a video file, answered from one frame's worth of visual tokens.

A question's way: the selector chooses frames (`marc.inference.selectors`; with the memory the video is cut into events
once and these are matched with the question), only they are decoded, the engine's vision tower and the compression
turn them into a handful of tokens, and its language model answers (`marc.inference.hf`). What the model reads of a
video is kept, so that another question about the same frames at the same budget costs neither decoding nor the tower.

    assistant = VideoAssistant.from_pretrained()
    print(assistant.ask("holiday.mp4", "What happens first?").answer)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marc.data.prompts import BARE_STYLE, Message, render_question
from marc.grading import extract_answer
from marc.inference.backend import Backend, Turns
from marc.inference.chat import Chat, streamed
from marc.inference.listening import Listener
from marc.inference.parts import also_by_name, load_backend, retrieving_selector
from marc.inference.prompts import Prompt
from marc.inference.query import Query, stretch_of
from marc.inference.recalling import recalled_clips
from marc.inference.remarks import about_options
from marc.inference.seen import Footage, SeenVideo, Shown, footage
from marc.inference.selectors import FrameSelector, RetrievingSelector
from marc.inference.stages import StageClock, peak_memory_bytes, reset_peak_memory
from marc.inference.thinking import Reply, beginning, think_where_unsure
from marc.inference.viewing import Viewer, in_turn
from marc.inference.wording import Wording
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.model.loading import EMBEDDED
from marc.types import FRAMES_PER_GRID, Answer, EngineName, Frames, GenerationOptions
from marc.video import frame_size
from marc.video import warm_up as start_decoder
from marc.video.options import FrameOptions, SubtitleOptions

if TYPE_CHECKING:
    from marc.memory.library import MemoryLibrary
    from marc.memory.store import VideoMemory


class VideoAssistant(Viewer):
    """Answers questions about video files; threads that ask at once are answered one after the other.

    Attributes:
        backend: The engine that encodes and answers.
        selector: Chooses the frames.
        frames: How many frames are read, and how large.
        subtitles: What subtitles are used for.
        generation: How answers are generated; assign to change it.
        name: What the model is called in answers.
        wording: How questions are written for the model.

    Args:
        backend: The engine, see `marc.inference.backend`.
        selector: Chooses the frames, see `marc.inference.selectors`; by default evenly.
        frames: How many frames are read, and how large.
        subtitles: What subtitles are used for.
        generation: How answers are generated.
        prompt_style: One of `marc.data.prompts.style_names`; ``None``: the model's own.

    Raises:
        ValueError: If an option is wrong.
    """

    @also_by_name
    def __init__(
        self,
        backend: Backend,
        selector: FrameSelector | None = None,
        *,
        frames: FrameOptions | None = None,
        subtitles: SubtitleOptions | None = None,
        generation: GenerationOptions | None = None,
        prompt_style: str | None = None,
    ) -> None:
        super().__init__(backend, selector, frames, subtitles)
        self.generation = generation or GenerationOptions()
        self.name = backend.name
        self.wording = Wording(backend, prompt_style)

    @property
    def prompt_style(self) -> str:
        """In which questions are put to the model."""
        return self.wording.style

    @classmethod
    def from_pretrained(
        cls,
        name: str = EMBEDDED,
        *,
        compression: Mapping[str, Any] | None = None,
        memory: MemoryOptions | None = MemoryOptions(),
        retrieval: RetrievalOptions | None = None,
        first_answer: FirstAnswerOptions | None = None,
        progress: Callable[[float], object] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        backend: EngineName = "hf",
        **options: Any,
    ) -> VideoAssistant:
        """Loads a model and what goes with it.

        Args:
            name: ``"tiny"``, a folder or a hub name, see `marc.model.loading.load_model`.
            compression: Fields of `marc.compression.CompressionConfig` that replace the model's; ``duplicates`` is
                `NEAR_DUPLICATES` if it is not among them.
            memory: How videos are remembered by the Visual Memory Retriever, which then chooses the frames; ``None``:
                frames are sampled evenly.
            retrieval: How many events are retrieved, by which dual encoder, and where memories are kept.
            first_answer: What the first question about a new video waits for; ``None``: for its memory.
            progress: Is told what share of a video has been read while it is being remembered.
            device: Where everything runs; ``None``: the GPU if there is one.
            dtype: Of the weights; ``None``: bfloat16 on a GPU, float32 on a CPU.
            attn_implementation: As in transformers.
            backend: What runs it: transformers, or vLLM in an environment of its own (docs/vllm.md).
            **options: Of the constructor: ``frames``, ``subtitles``, ``generation``, ``prompt_style``.

        Raises:
            ValueError: If there is no such model, or an option is wrong.
        """
        load = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
        engine = load_backend(name, compression, backend, **load)
        selector = None
        if memory is not None:
            selector = retrieving_selector(name, engine, memory, retrieval or RetrievalOptions())
            selector.progress, selector.first = progress, first_answer or FirstAnswerOptions()
        assistant = cls(engine, selector, **options)
        assistant.name = str(name)
        return assistant

    @in_turn
    def remember(self, video: str | Path) -> VideoMemory:
        """Cuts a video into events and embeds them, or finds that in the memory on disk.

        Raises:
            ValueError: If the assistant has no memory, or the video cannot be read.
        """
        if not isinstance(self.selector, RetrievingSelector):
            raise ValueError("this assistant has no memory: its frames are not retrieved")
        if not isinstance(video, str | Path):
            raise ValueError(f"one video file is remembered at a time, got {type(video).__name__}")
        return self.selector.remember(video)

    @in_turn
    def warm_up(self) -> None:
        """Does beforehand what the first question about a remembered video would wait for.

        It starts the decoder, loads the dual encoder, and answers a question about a made-up picture as large as
        frames may be, for which decoding is compiled where it is. A new video still has to be cut into events.
        """
        start_decoder()
        width, height = frame_size(1280, 720, source="a made-up picture", **self.pixel_limits)
        picture = Frames(np.zeros((FRAMES_PER_GRID, height, width, 3), np.uint8), np.zeros(FRAMES_PER_GRID), "")
        query = Query("", "What is shown?")
        if isinstance(self.selector, RetrievingSelector):
            self.selector.embedder.embed_question(query.question)
        clock = StageClock(self.backend.device)
        (video,) = self._encoded([self._wanted_frames(picture)], clock).values()
        self.backend.generate([self.wording.prompt(query, [(video, "")])], self.generation, clock)

    def ask(
        self,
        video: Footage | Sequence[Footage],
        question: str,
        *,
        options: Sequence[str] = (),
        prompt: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Answer:
        """Answers one question.

        Args:
            video: The file of a video or picture; a `marc.Clip`; frames that are there already (`marc.Frames`); a
                source that is watched (`marc.memory.live`), as it is now; or a list of these, which are shown in
                order, each at the model's budget.
            question: In natural language.
            options: Possible answers, such as ``"A. red"``, for a multiple-choice question.
            prompt: What the model reads instead of question and options in the assistant's prompt style.
            start: Where the stretch begins that is asked about, in seconds; for one file.
            end: Where it ends, exclusive.

        Raises:
            ValueError: If the video cannot be read (a `marc.video.VideoError`) or an option is wrong.
        """
        return self.ask_batch([self.query(video, question, options=options, prompt=prompt, start=start, end=end)])[0]

    def query(
        self,
        video: Footage | Sequence[Footage],
        question: str,
        *,
        options: Sequence[str] = (),
        prompt: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Query:
        """A question with its possible answers as it will be asked; see `ask`."""
        bare = None
        if prompt is None:
            render = partial(
                render_question,
                question,
                problem_type="multiple choice" if options else "free-form",
                options=options,
            )
            prompt, bare = render(style=self.wording.style), render(style=BARE_STYLE)
        if not all(isinstance(option, str) and option.strip() for option in options):
            raise ValueError(f"a possible answer is a text, got {list(options)}")
        return Query(stretch_of(video, start, end), question, prompt, tuple(options), bare_prompt=bare)

    def ask_library(self, library: MemoryLibrary, question: str, *, options: Sequence[str] = ()) -> Answer:
        """Answers a question from the events of all remembered videos that are nearest to it.

        In the layouts ``events`` and ``details`` these events share one video's budget.

        Args:
            library: Where they were remembered.
            question: In natural language.
            options: Possible answers.

        Raises:
            ValueError: If the assistant has no memory, nothing was remembered, or no file of it can be read any more.
        """
        return self.ask_batch([self.library_query(library, question, options=options)])[0]

    @in_turn
    def library_query(self, library: MemoryLibrary, question: str, *, options: Sequence[str] = ()) -> Query:
        """A question about remembered videos as it will be asked; see `ask_library`."""
        if not isinstance(self.selector, RetrievingSelector):
            raise ValueError("this assistant has no memory: nothing can be recalled")
        if not question.strip():
            raise ValueError("the question is empty")
        recalled = partial(recalled_clips, library, self.selector.embedder, question, self.selector.retrieval)
        clips, remarks = recalled(None)
        most = min(self.events_in_one_budget(str(clip.source)) for clip in clips)
        if sum(len(clip.found.kept) for clip in clips if clip.found) > most:
            clips, remarks = recalled(most)
        return replace(self.query(clips, question, options=options), remarks=remarks)

    def chat(
        self, video: Footage | Sequence[Footage], *, start: float | None = None, end: float | None = None
    ) -> Chat:
        """Begins a conversation; see `ask` for what it can be about."""
        return Chat(self, footage(stretch_of(video, start, end)))

    def stream(self, video: Footage | Sequence[Footage], question: str, **options: Any) -> Iterator[str]:
        """As `ask`, piece by piece as the output comes."""
        query = self.query(video, question, **options)
        return streamed(lambda tell: self.ask_batch([query], [Listener(tell)]))

    def ask_many(self, video: Footage | Sequence[Footage], questions: Sequence[str]) -> list[Answer]:
        """Answers several questions about one video, one generation for each budget; answers are those of `ask`.

        Questions that see the same frames share their features and the part of the prompt that they begin with.
        """
        if isinstance(questions, str):
            raise ValueError(f"ask_many takes a list of questions, got one text: {questions[:80]!r}; use ask for one")
        return self.ask_batch([Query(video, question) for question in questions])

    def ask_batch(self, queries: Sequence[Query], listeners: Sequence[Listener] = ()) -> list[Answer]:
        """Answers several questions, about the same or different videos, one generation for each budget.

        What several prompts about the same frames begin with is read once. Times of the stages and peak memory are
        those of the whole batch, shared out evenly over its answers.

        Args:
            queries: The questions.
            listeners: To their outputs, one for each; none: nobody hears them before all have ended.
        """
        return [answer for answer, _ in self.answer_and_show(queries, listeners)] if queries else []

    @in_turn
    def answer_and_show(
        self, queries: Sequence[Query], listeners: Sequence[Listener] = ()
    ) -> list[tuple[Answer, tuple[SeenVideo, ...]]]:
        """As `ask_batch`, with what the model saw for each question, video by video."""
        asked = [self._checked(query) for query in queries]
        reset_peak_memory(self.backend.device)
        clock = StageClock(self.backend.device)
        with clock.stage("total"):
            about = [(each, query.question) for query, clips in zip(queries, asked, strict=True) for each in clips]
            viewed = iter(self.view_all(about, clock))
            seen = [tuple(next(viewed) for _ in clips) for clips in asked]
            replies = self._replies(queries, seen, clock, listeners)
            texts = self.wording.texts([reply.whole for _, reply in replies])
        peak = peak_memory_bytes(self.backend.device)
        seconds = {stage: duration / len(queries) for stage, duration in clock.seconds.items()}
        rows = zip(queries, replies, texts, seen, strict=True)
        return [(self._answer(query, (*told, text), shown, seconds, peak), shown) for query, told, text, shown in rows]

    def _replies(
        self,
        queries: Sequence[Query],
        seen: Sequence[Sequence[SeenVideo]],
        clock: StageClock,
        listeners: Sequence[Listener],
    ) -> list[tuple[Prompt, Reply]]:
        """What each question came to, and the prompt of which that came."""
        threshold = self.generation.think_below
        with clock.stage("tokenize"):
            prompts = self.wording.prompts(queries, seen)
            given = () if threshold is None else beginning(self.backend.processor.tokenizer)
            bare = [] if threshold is None else self.wording.prompts([query.bare() for query in queries], seen, given)

        def generate(rows: Sequence[int]) -> list[list[int]]:
            heard = [listeners[row] for row in rows] if listeners else []
            return self.backend.generate([prompts[row] for row in rows], self.generation, clock, heard)

        def accept(row: int) -> None:
            if listeners:
                listeners[row].hear(self.wording.texts([[*given, *outputs[row].tokens]])[0])

        if threshold is None:
            return list(zip(prompts, map(Reply.asked_once, generate(range(len(prompts)))), strict=True))
        outputs = self.backend.greedy(bare, self.generation, clock)
        replies = think_where_unsure(outputs, threshold, given=given, accept=accept, think=generate)
        rows = zip(prompts, bare, replies, strict=True)
        return [(prompt if reply.has_thought else asked, reply) for prompt, asked, reply in rows]

    @in_turn
    def answer_turn(
        self,
        query: Query,
        turns: Turns,
        seen: tuple[SeenVideo, ...] | None,
        messages: Sequence[Message],
        tell: Callable[[str], object] | None = None,
    ) -> tuple[Answer, tuple[SeenVideo, ...], list[Message]]:
        """Answers one turn of a conversation, see `marc.inference.chat.Chat`.

        Args:
            query: The question of this turn.
            turns: What the engine keeps of the conversation.
            seen: What was shown in the first turn; None: this is the first.
            messages: The turns before.
            tell: Is told each piece of the output as it comes.

        Returns:
            The answer, what was shown, and the turns with this one.
        """
        clips = self._checked(query)
        reset_peak_memory(self.backend.device)
        clock = StageClock(self.backend.device)
        with clock.stage("total"):
            if seen is None:
                seen = tuple(self.view_all([(each, query.question) for each in clips], clock))
            asked, prompt, reply = self._turn(query, turns, (seen, messages), clock, tell)
            text = self.wording.texts([reply.whole])[0]
        peak = peak_memory_bytes(self.backend.device)
        answer = self._answer(query, (prompt, reply, text), seen, clock.seconds, peak)
        said: Message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        return answer, seen, [*asked, said]

    def _turn(
        self,
        query: Query,
        turns: Turns,
        before: tuple[Sequence[SeenVideo], Sequence[Message]],
        clock: StageClock,
        tell: Callable[[str], object] | None,
    ) -> tuple[list[Message], Prompt, Reply]:
        """A conversation with its next question, as the answer that counts was asked for, and what that came to."""
        seen, messages = before
        threshold = self.generation.think_below

        def asked(query: Query, begun: Sequence[int] = ()) -> tuple[list[Message], Prompt]:
            with clock.stage("tokenize"):
                shown = () if messages else [(each.video.kind, each.said) for each in seen]
                conversation = [*messages, *self.wording.messages(query, shown)]
                return conversation, self.wording.prompt_of(conversation, [each.video for each in seen], begun)

        def generate(_: Sequence[int]) -> list[list[int]]:
            return [turns.generate(thinking[1], self.generation, clock, tell)]

        def accept(_: int) -> None:
            if tell is not None:
                tell(self.wording.texts([[*given, *output.tokens]])[0])

        thinking = asked(query)
        if threshold is None:
            return (*thinking, Reply.asked_once(*generate([0])))
        given = beginning(self.backend.processor.tokenizer)
        bare = asked(query.bare(), given)
        output = turns.greedy(bare[1], self.generation, clock)
        (reply,) = think_where_unsure([output], threshold, given=given, accept=accept, think=generate)
        return (*(thinking if reply.has_thought else bare), reply)

    def _checked(self, query: Query) -> tuple[Shown, ...]:
        """What a query is about; refuses, before anything is read, what is no question or has no room."""
        self.wording.check(query, asks_bare=self.generation.think_below is not None)
        return () if query.messages and not query.video else footage(query.video)

    def _answer(
        self,
        query: Query,
        told: tuple[Prompt, Reply, str],
        seen: Sequence[SeenVideo],
        seconds: Mapping[str, float],
        peak: int,
    ) -> Answer:
        prompt, reply, output = told
        answer = extract_answer(output, protocol="official")
        about_videos = [remark for each in seen for remark in each.remarks]
        remarks = [*query.remarks, *about_videos, *about_options(query.options, answer)]
        longest = self.generation.max_new_tokens
        videos = tuple(each.report(len(self.wording.tokens(each.said)) if each.said else 0) for each in seen)
        budgets = [each.visual_tokens_budget for each in videos]
        return Answer(
            answer=answer,
            output=output,
            frames=sum(len(each.frame_seconds) for each in videos),
            visual_tokens_before=sum(each.visual_tokens_before for each in videos),
            visual_tokens_after=sum(each.visual_tokens_after for each in videos),
            prompt_tokens_before=sum(each.prompt_tokens_before for each in videos),
            prompt_tokens_after=sum(each.prompt_tokens_after for each in videos),
            seconds=dict(seconds),
            peak_memory_bytes=peak,
            events=tuple(event for each in videos for event in each.events),
            scores=tuple(score for each in videos for score in each.scores),
            visual_tokens_budget=None if None in budgets else sum(each for each in budgets if each is not None),
            warnings=tuple(dict.fromkeys(remarks)),
            question=query.question,
            options=query.options,
            model=self.name,
            videos=videos,
            input_tokens=prompt.tokens,
            output_tokens=len(reply.tokens),
            is_cut=len(reply.tokens) == longest and reply.tokens[-1] not in self.wording.ends,
            probability=reply.probability,
            has_thought=reply.has_thought,
            generated_tokens=reply.generated,
        )
