"""Questions about a video of the level ``arena``: details, order, counting, duration and cause, all about one video.

Each kind is a function as in `marc.world.questions`, and says which facts must have been seen (`Fact`): the answer of
about half of the kinds hangs on single cells of one or two temporal grids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from marc.world.arena.scenes import DIGITS, LETTERS, MOST_ACTORS, TINTS, ArenaEvent, ArenaVideo, Mark, MarkKind
from marc.world.questions import Draft, Fact, Kinds, pick, places, storyline, wrong
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, MovingObject

MOST_LISTED = 12
"""Scenes of a video, at most, that are counted or gone through one by one."""
MUCH_LONGER = 2
"""By which factor the longer of two scenes is longer, at least."""
ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "direction": DIRECTIONS}
_SCENES = tuple(f"{tint} {pattern}" for tint in TINTS for pattern in BACKGROUNDS)


def scene_fact(video: ArenaVideo, index: int) -> Fact:
    """That there is such a scene."""
    begin = video.first_grid(index)
    return Fact("scene", tuple(begin + grid for grid in video.clear_grids(index)))


def thing_fact(video: ArenaVideo, index: int, thing: Mark | MovingObject) -> Fact:
    """That something is seen in a scene."""
    seen = [each for each in video.sightings(index) if each.thing == thing]
    sort = "actor" if isinstance(thing, MovingObject) else "sign" if thing.kind == "sign" else "mark"
    return Fact(sort, tuple(each.grid for each in seen), tuple((each.row, each.column) for each in seen))


def marks(video: ArenaVideo, kind: MarkKind) -> list[tuple[int, Mark]]:
    """All marks of a kind, of which a scene has one at most, each with the index of its scene."""
    return [(index, mark) for index, event in enumerate(video.events) for mark in event.marks_of(kind)]


def unique_signs(video: ArenaVideo) -> list[tuple[int, Mark]]:
    """The signs that say what no other one does."""
    signs = marks(video, "sign")
    said = [mark.value for _, mark in signs]
    return [(index, mark) for index, mark in signs if said.count(mark.value) == 1]


def _codes_like(rng: np.random.Generator, code: str) -> list[str]:
    """What a sign might say that differs from another one in a letter or in a digit."""
    other = [letter + code[1] for letter in LETTERS if letter != code[0]]
    other += [code[0] + digit for digit in DIGITS if digit != code[1]]
    return [str(word) for word in rng.permutation(other)]


def sign(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """What does the sign say?"""
    signs = marks(video, "sign")
    if not signs:
        return None
    index, mark = pick(rng, signs)
    scene = video.events[index].background
    text = pick(rng, ("What does the sign in the {} scene say?", "In the {} scene, what is written on the sign?"))
    others = wrong(rng, mark.value, [each.value for _, each in signs], _codes_like(rng, mark.value))
    facts = (thing_fact(video, index, mark),)
    return Draft(text.format(scene), mark.value, others, f"{scene} sign", index, facts=facts)


def star(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """What colour is the star?"""
    stars = marks(video, "star")
    if not stars:
        return None
    index, mark = pick(rng, stars)
    scene = video.events[index].background
    text = pick(rng, ("What colour is the star in the {} scene?", "In the {} scene, what colour is the star?"))
    others = wrong(rng, mark.value, [each.value for _, each in stars], COLOURS)
    facts = (thing_fact(video, index, mark),)
    return Draft(text.format(scene), mark.value, others, f"{scene} star", index, facts=facts)


def cause(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Which button turns on the light?"""
    causes = [(index, event.cause) for index, event in enumerate(video.events) if event.cause is not None]
    if not causes:
        return None
    index, mark = pick(rng, causes)
    event = video.events[index]
    text = pick(
        rng, ("Which button turns on the light in the {} scene?", "In the {} scene, which button turns on the light?")
    )
    others = wrong(rng, mark.value, [each.value for each in event.marks_of("button")], COLOURS)
    facts = (thing_fact(video, index, mark),)
    thought = f"{event.background} light button"
    return Draft(text.format(event.background), mark.value, others, thought, index, facts=facts)


def attribute_of_actor(attribute: str, texts: Sequence[str]) -> Callable:
    """The kind of question that asks for an attribute of something that moves through a scene."""

    def draft(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
        index = int(rng.integers(len(video.events)))
        event = video.events[index]
        actor = pick(rng, event.actors)
        facts = (thing_fact(video, index, actor),)
        if not facts[0].grids:
            return None
        called = {"colour": actor.shape, "shape": f"{actor.colour} object", "direction": actor.name}[attribute]
        present = [getattr(other, attribute) for each in video.events for other in each.actors]
        answer = getattr(actor, attribute)
        others = wrong(rng, answer, present, ATTRIBUTES[attribute])
        text = pick(rng, texts).format(object=called, scene=event.background)
        return Draft(text, answer, others, f"{event.background} {called}", index, facts=facts)

    return draft


def scene_of_sign(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """In which scene is it?"""
    signs = unique_signs(video)
    if not signs:
        return None
    index, mark = pick(rng, signs)
    scene = video.events[index].background
    text = pick(rng, ("Which scene has the sign {}?", "In which scene is the sign {}?")).format(mark.value)
    others = wrong(rng, scene, [event.background for event in video.events], _SCENES)
    return Draft(text, scene, others, f"sign {mark.value}", index, facts=(thing_fact(video, index, mark),))


def first_sign(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Which of two signs is shown first (or last)?"""
    signs = unique_signs(video)
    if len(signs) < 2 or len(video.events) > MOST_LISTED:
        return None
    chosen = [signs[i] for i in rng.permutation(len(signs))[:2]]
    when, said = [index for index, _ in chosen], [mark.value for _, mark in chosen]
    told = [f"{mark.value} {video.events[index].background}" for index, mark in chosen]
    word = pick(rng, ("first", "last"))
    best = int(np.argmin(when) if word == "first" else np.argmax(when))
    text = f"Which sign is shown {word}, {said[0]} or {said[1]}?"
    facts = tuple(thing_fact(video, index, mark) for index, mark in chosen)
    return Draft(text, said[best], (said[1 - best],), places(video, told, when), when[best], facts=facts)


def neighbour(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Which scene comes right before or after?"""
    if len(video.events) > MOST_LISTED:
        return None
    first, after = int(rng.integers(len(video.events) - 1)), bool(rng.integers(2))
    asked, told = (first + 1, first) if after else (first, first + 1)
    answer, other = video.events[asked].background, video.events[told].background
    word = "after" if after else "before"
    present = [event.background for event in video.events if event.background != other]
    words = [scene for scene in _SCENES if scene != other]
    thought = f"{storyline(video)}. {other} is {told + 1}, {word} it is {asked + 1}"
    facts = (scene_fact(video, told), scene_fact(video, asked))
    text = f"Which scene comes right {word} the {other} scene?"
    return Draft(text, answer, wrong(rng, answer, present, words), thought, asked, facts=facts)


def precedes(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Does this scene come before that one?"""
    if len(video.events) > MOST_LISTED:
        return None
    one, two = (int(i) for i in rng.permutation(len(video.events))[:2])
    names = [video.events[i].background for i in (one, two)]
    text = f"Does the {names[0]} scene come before the {names[1]} scene?"
    facts = (scene_fact(video, one), scene_fact(video, two))
    return Draft(text, "yes" if one < two else "no", (), places(video, names, (one, two)), facts=facts)


def longer(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Which of two scenes lasts longer (or shorter)?"""
    one, two = (int(i) for i in rng.permutation(len(video.events))[:2])
    lengths = [video.events[i].grids for i in (one, two)]
    if max(lengths) < MUCH_LONGER * min(lengths):
        return None
    names = [video.events[i].background for i in (one, two)]
    word = pick(rng, ("longer", "shorter"))
    best = int(np.argmax(lengths) if word == "longer" else np.argmin(lengths))
    text = f"Which scene is {word}, the {names[0]} one or the {names[1]} one?"
    facts = (scene_fact(video, one), scene_fact(video, two))
    longest = int(np.argmax(lengths))
    thought = f"{' '.join(names)}: {names[longest]} is longer, {names[1 - longest]} is shorter"
    return Draft(text, names[best], (names[1 - best],), thought, facts=facts)


def _number(rng: np.random.Generator, count: int, least: int) -> tuple[str, tuple[str, ...]]:
    """A number as an answer, and wrong ones: of four numbers in a row it may be any."""
    first = int(rng.integers(max(least, count - 3), count + 1))
    return str(count), tuple(str(n) for n in range(first, first + 4) if n != count)


def count_scenes(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """How many scenes?"""
    if len(video.events) > MOST_LISTED:
        return None
    text = pick(rng, ("How many scenes are there?", "How many scenes does the video have?"))
    facts = tuple(scene_fact(video, index) for index in range(len(video.events)))
    return Draft(text, *_number(rng, len(video.events), 1), storyline(video), facts=facts)


def counted(video: ArenaVideo, words: Callable[[ArenaEvent], Sequence[str]]) -> str:
    """The scenes, and what each has, with a running count: ``The scenes are teal striped K7 1, navy plain``."""
    told, count = [], 0
    for event in video.events:
        parts = [event.background]
        for word in words(event):
            count += 1
            parts += [word, str(count)]
        told.append(" ".join(parts))
    return "The scenes are " + ", ".join(told)


def count_marks(kind: MarkKind) -> Callable:
    """The kind of question that counts signs or stars."""

    def draft(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
        found = marks(video, kind)
        if len(video.events) > MOST_LISTED:
            return None
        text = pick(rng, ("How many {} are there?", "How many {} does the video show?")).format(f"{kind}s")
        thought = counted(video, lambda event: [mark.value for mark in event.marks_of(kind)])
        facts = tuple(thing_fact(video, index, mark) for index, mark in found)
        return Draft(text, *_number(rng, len(found), 0), thought, facts=facts)

    return draft


def count_actors(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """How many objects move through a scene?"""
    index = int(rng.integers(len(video.events)))
    event = video.events[index]
    facts = tuple(thing_fact(video, index, actor) for actor in event.actors)
    if not all(fact.grids for fact in facts):
        return None
    text = pick(rng, ("How many objects move in the {} scene?", "In the {} scene, how many objects move?"))
    colours = sorted((actor.colour for actor in event.actors), key=COLOURS.index)
    told = [f"{colour} {number}" for number, colour in enumerate(colours, start=1)]
    thought = ", ".join(f"{event.background} object {one}" for one in (*told, "no"))
    others = tuple(str(n) for n in range(1, MOST_ACTORS + 2) if n != len(colours))
    return Draft(text.format(event.background), str(len(colours)), others, thought, index, facts=facts)


def sign_exists(video: ArenaVideo, rng: np.random.Generator) -> Draft | None:
    """Is there such a sign? Half of the time not, though one differs from it in one character."""
    signs = marks(video, "sign")
    if not signs:
        return None
    said = [mark.value for _, mark in signs]
    present = bool(rng.integers(2))
    like = pick(rng, said)
    code = like if present else next(code for code in _codes_like(rng, like) if code not in said)
    facts = tuple(thing_fact(video, index, mark) for index, mark in signs if mark.value == code)
    nearest = max(said, key=lambda other: sum(map(str.__eq__, code, other)))
    thought = f"sign {code} {nearest}"
    return Draft(f"Is there a sign that says {code}?", "yes" if present else "no", (), thought, facts=facts)


ARENA_KINDS: Kinds = {
    "sign": sign,
    "star": star,
    "cause": cause,
    "actor colour": attribute_of_actor(
        "colour",
        ("What colour is the {object} in the {scene} scene?", "In the {scene} scene, what colour is the {object}?"),
    ),
    "actor shape": attribute_of_actor(
        "shape",
        ("What shape is the {object} in the {scene} scene?", "In the {scene} scene, what shape is the {object}?"),
    ),
    "actor direction": attribute_of_actor(
        "direction",
        (
            "Which way does the {object} in the {scene} scene move?",
            "In the {scene} scene, where does the {object} move?",
        ),
    ),
    "scene of sign": scene_of_sign,
    "first sign": first_sign,
    "neighbour": neighbour,
    "precedes": precedes,
    "longer": longer,
    "count scenes": count_scenes,
    "count signs": count_marks("sign"),
    "count stars": count_marks("star"),
    "count actors": count_actors,
    "sign exists": sign_exists,
}
"""Every kind of question of the level, by name."""
