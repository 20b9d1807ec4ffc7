"""Questions about a micro-world video in plain English, with answers that only the video can tell.

Each kind of question is one small function that returns a `Draft` or ``None`` where the video does not admit it (a
description must pick out exactly one thing). `ask` turns a draft into a free-word or number question, or into a
multiple-choice one whose distractors are, first of all, true of *other* parts of the same video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from marc.world.arena.scenes import AnyVideo
from marc.world.scenes import COLOURS, DIRECTIONS, LEVELS, SHAPES, MovingObject, WorldEvent, WorldVideo

Choice = TypeVar("Choice")
LETTERS = "ABCD"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True)
class Fact:
    """Something that must have been seen to answer a question, and where it can be seen; any of the places will do.

    Attributes:
        sort: ``"sign"``, ``"mark"``, ``"actor"`` or ``"scene"``.
        grids: Temporal grids of the video.
        cells: The row and column in each of them; empty: in every cell.
    """

    sort: str
    grids: tuple[int, ...]
    cells: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Draft:
    """A question before its format is chosen.

    Attributes:
        text: The question.
        answer: Its answer, a word, a phrase or digits.
        others: Wrong answers of the same sort, the hardest first; empty for yes or no.
        thought: One sentence of reasoning.
        event: Index of the one event that it is about, or ``None``.
        concluded: The reasoning ends with the answer, which says what a letter stands for before the letter is given;
            not where the answer is long.
        facts: What must have been seen, all of it; at level ``arena``.
    """

    text: str
    answer: str
    others: tuple[str, ...]
    thought: str
    event: int | None = None
    concluded: bool = True
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class WorldQuestion:
    """A question as a data set would hold it.

    Attributes:
        kind: Name of the kind, a key of `KINDS` or of those of level ``arena``.
        text: The question without its options.
        options: Such as ``("A. red", "B. blue")``; empty unless it is multiple choice.
        answer: The right answer: a letter, a word, a phrase or digits.
        problem_type: ``"multiple choice"``, ``"numerical"`` or ``"free-form"``, as in Video-R1.
        thought: One sentence of reasoning that leads to the answer.
        event: Index of the one event that it is about, or ``None``.
        facts: What must have been seen, all of it; at level ``arena``.
    """

    kind: str
    text: str
    options: tuple[str, ...]
    answer: str
    problem_type: str
    thought: str
    event: int | None
    facts: tuple[Fact, ...] = ()


def describe(event: WorldEvent) -> str:
    """What an event shows, such as ``The striped scene shows a red circle moving left``."""
    things = " and ".join(f"a {item.name} moving {item.direction}" for item in event.objects)
    return f"The {event.background} scene shows {things}"


def storyline(video: AnyVideo) -> str:
    """The scenes in order, such as ``The scenes are 1 plain, 2 striped``."""
    names = [event.background for event in video.events]
    return "The scenes are " + ", ".join(f"{i} {name}" for i, name in enumerate(names, start=1))


def places(video: AnyVideo, names: Sequence[str], indices: Sequence[int]) -> str:
    """The scenes in order, and the numbers of those asked about: ``… 1 plain, 2 tiled. tiled is 2, plain is 1``."""
    return f"{storyline(video)}. " + ", ".join(f"{name} is {i + 1}" for name, i in zip(names, indices, strict=True))


def tally(video: WorldVideo, wanted: dict[str, str]) -> str:
    """Scene by scene, what decides whether an object is as wanted, and a running count of those that are.

    Of an object, attributes are told until one differs: ``The scenes are plain red left, dotted blue, tiled red up 1``
    for a red one that moves up.
    """
    told, count = [], 0
    for event in video.events:
        words = [event.background]
        for item in event.objects:
            values = [getattr(item, attribute) for attribute in wanted]
            alike = [value == other for value, other in zip(values, wanted.values(), strict=True)]
            if all(alike):
                count += 1
                words += [*values, str(count)]
            else:
                words += values[: alike.index(False) + 1]
        told.append(" ".join(words))
    return "The scenes are " + ", ".join(told)


def scene_words(video: WorldVideo) -> tuple[str, ...]:
    """The backgrounds that a video of this level may have."""
    return LEVELS[video.level].backgrounds


def all_objects(video: WorldVideo) -> list[tuple[int, MovingObject]]:
    """Every object with the index of its event, in time order."""
    return [(index, item) for index, event in enumerate(video.events) for item in event.objects]


def named_once(video: WorldVideo) -> list[tuple[int, MovingObject]]:
    """The objects whose name (colour and shape) occurs once in the video."""
    things = all_objects(video)
    names = [item.name for _, item in things]
    return [thing for thing in things if names.count(thing[1].name) == 1]


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def wrong(rng: np.random.Generator, answer: str, present: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Wrong answers: those true of another part of the video first, then the other words, each in random order."""
    near = [word for word in dict.fromkeys(present) if word != answer]
    far = [word for word in words if word != answer and word not in near]
    return tuple(str(word) for part in (near, far) for word in (rng.permutation(part) if part else ()))


def plural(shape: str) -> str:
    """Of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def refer(rng: np.random.Generator, event: WorldEvent, item: MovingObject, hidden: str) -> str | None:
    """How to speak of one object of an event without saying its attribute `hidden`; ``None`` if it is ambiguous."""
    if len(event.objects) == 1:
        return "object"
    phrases = {"colour": f"{item.colour} object", "shape": item.shape}
    usable = [
        phrase
        for name, phrase in phrases.items()
        if name != hidden and [getattr(other, name) for other in event.objects].count(getattr(item, name)) == 1
    ]
    return pick(rng, usable) if usable else None


def attribute_of_scene(attribute: str, words: Sequence[str], texts: Sequence[str]) -> Callable:
    """The kind of question that asks for an attribute of the object in a scene."""

    def draft(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
        index = int(rng.integers(len(video.events)))
        event = video.events[index]
        item = pick(rng, event.objects)
        phrase = refer(rng, event, item, attribute)
        if phrase is None:
            return None
        answer = getattr(item, attribute)
        present = [getattr(other, attribute) for _, other in all_objects(video)]
        text = pick(rng, texts).format(object=phrase, scene=event.background)
        return Draft(text, answer, wrong(rng, answer, present, words), describe(event), index)

    return draft


def happening(event: WorldEvent) -> str:
    """What happens in an event, such as ``a red circle moves left``."""
    return " and ".join(f"a {item.name} moves {item.direction}" for item in event.objects)


def event_story(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """What happens in this scene?"""
    index = int(rng.integers(len(video.events)))
    event = video.events[index]
    return Draft(
        f"What happens in the {event.background} scene?", happening(event), (), describe(event), index, concluded=False
    )


def whole_story(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """What happens in the video?"""
    text = pick(rng, ("What happens in the video?", "Describe the video."))
    answer = ", then ".join(happening(event) for event in video.events)
    return Draft(text, answer, (), storyline(video), concluded=False)


def scene_list(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """Which scenes, in order?"""
    text = pick(rng, ("List the scenes in order.", "Which scenes are there, in order?"))
    answer = ", then ".join(event.background for event in video.events)
    return Draft(text, answer, (), storyline(video), concluded=False)


def scene_of_object(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """In which scene is this object?"""
    things = named_once(video)
    if not things:
        return None
    index, item = pick(rng, things)
    event = video.events[index]
    text = pick(rng, ("Which scene shows the {}?", "In which scene is the {}?")).format(item.name)
    others = wrong(rng, event.background, [other.background for other in video.events], scene_words(video))
    return Draft(text, event.background, others, describe(event), index)


def direction_of_object(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """Where does this object go?"""
    things = named_once(video)
    if not things:
        return None
    index, item = pick(rng, things)
    text = pick(rng, ("Which way does the {} move?", "In which direction does the {} go?")).format(item.name)
    others = wrong(rng, item.direction, [other.direction for _, other in all_objects(video)], DIRECTIONS)
    return Draft(text, item.direction, others, describe(video.events[index]), index)


def ordinal(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """What is in the first, second, … or last scene?"""
    count = len(video.events)
    place = int(rng.integers(count))
    words = [ORDINALS[place]] + (["last"] if place == count - 1 and count > 1 else [])
    word, event = pick(rng, words), video.events[place]
    attribute = pick(rng, ("background", "colour", "shape", "direction"))
    if attribute == "background":
        others = wrong(rng, event.background, [other.background for other in video.events], scene_words(video))
        return Draft(f"Which scene comes {word}?", event.background, others, storyline(video), place)
    item = pick(rng, event.objects)
    phrase = refer(rng, event, item, attribute)
    if phrase is None:
        return None
    text, vocabulary = {
        "colour": (f"What colour is the {phrase} in the {word} scene?", COLOURS),
        "shape": (f"What shape is the {phrase} in the {word} scene?", SHAPES),
        "direction": (f"Which way does the {phrase} in the {word} scene move?", DIRECTIONS),
    }[attribute]
    present = [getattr(other, attribute) for _, other in all_objects(video)]
    answer = getattr(item, attribute)
    thought = f"{storyline(video)}. {describe(event)}"
    return Draft(text, answer, wrong(rng, answer, present, vocabulary), thought, place)


def neighbour(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """What comes right before or after this scene?"""
    if len(video.events) < 2:
        return None
    first = int(rng.integers(len(video.events) - 1))
    after = bool(rng.integers(2))
    asked, told = (first + 1, first) if after else (first, first + 1)
    answer, other = video.events[asked].background, video.events[told].background
    text = f"Which scene comes right {'after' if after else 'before'} the {other} scene?"
    present = [event.background for event in video.events if event.background != other]
    words = [word for word in scene_words(video) if word != other]
    thought = f"{storyline(video)}. {other} is {told + 1}, {'after' if after else 'before'} it is {asked + 1}"
    return Draft(text, answer, wrong(rng, answer, present, words), thought, asked)


def which_first(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """Which of two scenes, or of two objects, appears first (or last)?"""
    if len(video.events) < 2:
        return None
    things = named_once(video)
    if rng.integers(2) and len({index for index, _ in things}) >= 2:
        chosen = [things[i] for i in rng.permutation(len(things))[:2]]
        when, names = [index for index, _ in chosen], [item.name for _, item in chosen]
        if when[0] == when[1]:
            return None
        noun, ending = "", ""
        told = [f"{name} {video.events[index].background}" for name, index in zip(names, when, strict=True)]
    else:
        when = [int(i) for i in rng.permutation(len(video.events))[:2]]
        names = [video.events[index].background for index in when]
        noun, ending, told = " scene", " one", names
    word = pick(rng, ("first", "last"))
    best = int(np.argmin(when) if word == "first" else np.argmax(when))
    text = f"Which{noun} appears {word}, the {names[0]}{ending} or the {names[1]}{ending}?"
    return Draft(text, names[best], (names[1 - best],), places(video, told, when), when[best])


def precedes(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """Does this scene come before that one?"""
    if len(video.events) < 2:
        return None
    one, two = (int(i) for i in rng.permutation(len(video.events))[:2])
    names = [video.events[i].background for i in (one, two)]
    text = f"Does the {names[0]} scene come before the {names[1]} scene?"
    return Draft(text, "yes" if one < two else "no", (), places(video, names, (one, two)))


def count_scenes(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """How many scenes?"""
    text = pick(rng, ("How many scenes are there?", "How many scenes does the video have?"))
    return _counted(text, len(video.events), 1, storyline(video))


def count_objects(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """How many objects have this colour, shape or direction? The number is drawn first, so that none is the rule."""
    attribute, words, text = pick(
        rng,
        (
            ("colour", COLOURS, "How many {} objects are there?"),
            ("shape", SHAPES, "How many {} are there?"),
            ("direction", DIRECTIONS, "How many objects move {}?"),
        ),
    )
    present = [getattr(item, attribute) for _, item in all_objects(video)]
    counts = {word: present.count(word) for word in words}
    wanted = pick(rng, sorted(set(counts.values())))
    word = pick(rng, [word for word in words if counts[word] == wanted])
    text = text.format(plural(word) if attribute == "shape" else word)
    return _counted(text, counts[word], 0, tally(video, {attribute: word}))


def _counted(text: str, count: int, least: int, thought: str) -> Draft:
    near = sorted((other for other in range(least, max(5, count + 3)) if other != count), key=lambda n: abs(n - count))
    return Draft(text, str(count), tuple(str(other) for other in near[:3]), thought)


def exists(video: WorldVideo, rng: np.random.Generator) -> Draft | None:
    """Is there such an object? Half of the time not, though one of its attributes, or both apart, do occur."""
    things = [item for _, item in all_objects(video)]
    one, two, text = pick(
        rng,
        (
            ("colour", "shape", "Is there a {} {}?"),
            ("colour", "direction", "Is there a {} object that moves {}?"),
            ("shape", "direction", "Is there a {} that moves {}?"),
        ),
    )
    pairs = {(getattr(item, one), getattr(item, two)) for item in things}
    present = bool(rng.integers(2))
    if present:
        choices = pairs
    else:
        vocabulary = {"colour": COLOURS, "shape": SHAPES, "direction": DIRECTIONS}
        crossed = {(a, b) for a, _ in pairs for _, b in pairs} - pairs
        changed = {(a, b) for a, _ in pairs for b in vocabulary[two]} | {
            (a, b) for a in vocabulary[one] for _, b in pairs
        }
        choices = crossed if crossed and rng.integers(2) else changed - pairs
    first, second = pick(rng, sorted(choices))
    thought = tally(video, {one: first, two: second})
    return Draft(text.format(first, second), "yes" if present else "no", (), thought)


Kinds = Mapping[str, Callable[[Any, np.random.Generator], Draft | None]]
"""Kinds of questions about the videos of a level, by name."""

KINDS: Kinds = {
    "colour": attribute_of_scene(
        "colour",
        COLOURS,
        ("What colour is the {object} in the {scene} scene?", "In the {scene} scene, what colour is the {object}?"),
    ),
    "shape": attribute_of_scene(
        "shape",
        SHAPES,
        ("What shape is the {object} in the {scene} scene?", "In the {scene} scene, what shape is the {object}?"),
    ),
    "direction": attribute_of_scene(
        "direction",
        DIRECTIONS,
        (
            "Which way does the {object} in the {scene} scene move?",
            "In the {scene} scene, where does the {object} move?",
        ),
    ),
    "event story": event_story,
    "whole story": whole_story,
    "scene list": scene_list,
    "scene of object": scene_of_object,
    "direction of object": direction_of_object,
    "ordinal": ordinal,
    "neighbour": neighbour,
    "which first": which_first,
    "precedes": precedes,
    "count scenes": count_scenes,
    "count objects": count_objects,
    "exists": exists,
}
"""Of levels ``easy`` and ``hard``."""
ABOUT_ONE_EVENT = ("colour", "shape", "direction", "event story", "scene of object", "direction of object")
"""Kinds of questions that name what can be seen in the event that answers them."""


def ask(
    video: AnyVideo, kind: str, rng: np.random.Generator, *, multiple_choice: bool = False, kinds: Kinds = KINDS
) -> WorldQuestion | None:
    """Draw a question of a kind, or ``None`` where this draw does not fit the video.

    Args:
        video: What it is about.
        kind: A key of `kinds`.
        rng: The generator.
        multiple_choice: Offer up to four lettered options; not for questions of yes or no.
        kinds: Those of the video's level.
    """
    draft = kinds[kind](video, rng)
    if draft is None:
        return None
    thought = f"{draft.thought}: {draft.answer}" if draft.concluded else draft.thought
    if not multiple_choice or not draft.others:
        problem_type = "numerical" if draft.answer.isdigit() else "free-form"
        return WorldQuestion(kind, draft.text, (), draft.answer, problem_type, thought, draft.event, draft.facts)
    texts = [draft.answer, *draft.others[: len(LETTERS) - 1]]
    order = rng.permutation(len(texts))
    options = tuple(f"{letter}. {texts[i]}" for letter, i in zip(LETTERS, order, strict=False))
    letter = LETTERS[list(order).index(0)]
    return WorldQuestion(kind, draft.text, options, letter, "multiple choice", thought, draft.event, draft.facts)


def draw_questions(
    video: AnyVideo,
    rng: np.random.Generator,
    count: int,
    *,
    weights: dict[str, float] | None = None,
    choice_rate: float = 0.33,
    kinds: Kinds = KINDS,
) -> list[WorldQuestion]:
    """Draw `count` different questions about a video.

    Args:
        video: What they are about.
        rng: The generator.
        count: How many.
        weights: How often each kind is tried, 0 for those that are missing; by default all equally often.
        choice_rate: Share of multiple choice.
        kinds: Those of the video's level.
    """
    names = list(kinds)
    shares = np.array([1.0 if weights is None else weights.get(name, 0.0) for name in names])
    edges = np.cumsum(shares / shares.sum())
    found: dict[tuple[str, tuple[str, ...]], WorldQuestion] = {}
    for _ in range(40 * count):
        kind = names[min(int(np.searchsorted(edges, rng.random())), len(names) - 1)]
        question = ask(video, kind, rng, multiple_choice=rng.random() < choice_rate, kinds=kinds)
        if question is not None:
            found.setdefault((question.text, question.options), question)
        if len(found) == count:
            return list(found.values())
    raise RuntimeError(f"{video.name} admits only {len(found)} of {count} questions")
