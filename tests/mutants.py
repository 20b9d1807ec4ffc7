"""Damaged and hostile versions of files, made from seeds: of their bytes, and of what stands in their JSON.

``MARC_MUTANTS`` says how many each test makes, ``MARC_MUTANT_SEED`` from which seed on.
"""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

DEEP = "a very deep list"
WRONG: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 1.5, 10**19, 10**400, 1e308, float("nan"), float("-inf")),
    *("", " ", "x", "a\0b", "half \ud800", "../x", "/etc/passwd", "\x1b[31m", "x" * 5000, "[/x]", "1e999", DEEP),
    *([], {}, [[]], [None], {"a": None}, {"": {}}, ["x"] * 1000),
)


def seeds(most: int) -> Iterator[Random]:
    """Random generators, so many or as many as the environment says, each named by its seed."""
    first = int(os.environ.get("MARC_MUTANT_SEED", "0"))
    for seed in range(first, first + int(os.environ.get("MARC_MUTANTS", most))):
        yield Random(seed)


def damaged(content: bytes, chance: Random) -> bytes:
    """Bytes of which some were flipped, put in, left out, repeated, zeroed or cut off."""
    for _ in range(chance.choice((1, 1, 1, 3, 20))):
        start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        end = chance.choice((end, min(end, start + chance.randrange(1, 9))))
        content = content[:start] + _instead_of(content[start:end], chance) + content[end:]
    return content[: chance.randrange(len(content) + 1)] if chance.random() < 0.2 else content


def _instead_of(stretch: bytes, chance: Random) -> bytes:
    return chance.choice(
        (
            bytes(byte ^ (1 << chance.randrange(8)) for byte in stretch),
            chance.randbytes(len(stretch)),
            stretch + chance.randbytes(chance.randrange(1, 5)),
            b"",
            stretch + stretch,
            bytes(len(stretch)),
            chance.choice((b"\xff", b"\n", b"\x00", b"{", b'"', b"[" * 20_000, b"9" * 5000)),
        )
    )


def retold(value: Any, chance: Random) -> str:
    """JSON in which some values are others, of another type, missing, twice, or nested without an end."""
    told = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 2, 4))):
        if places := list(_places(told)):
            _change(*chance.choice(places), chance)
    deep = chance.choice((50, 900, 5000))
    return json.dumps(told[0] if told else None).replace(json.dumps(DEEP), "[" * deep + "]" * deep)


def _change(holder: Any, key: Any, chance: Random) -> None:
    what = chance.randrange(6)
    if what == 0 and isinstance(holder, dict):
        holder[chance.choice((f"{key}x", "", "id", "\0"))] = holder.pop(key)
    elif what == 1:
        del holder[key]
    elif what == 2 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[key] = copy.deepcopy(chance.choice(WRONG))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a value, by what holds it and where."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def withstands(read: Callable[[], object], allowed: type[Exception] | tuple[type[Exception], ...], what: str) -> None:
    """Fails unless a reader accepts what it is given, or raises what its documentation says."""
    try:
        read()
    except allowed:
        return
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error


def break_one(folder: Path, chance: Random) -> str:
    """Damages one file of a checkpoint."""
    file = chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    content = file.read_bytes()
    if file.suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header, rest = content[8 : 8 + length], content[8 + length :]
        told = retold(json.loads(header), chance).encode() if chance.random() < 0.5 else damaged(header, chance)
        size = chance.choice((len(told), len(told), 2**60, 3))
        file.write_bytes(size.to_bytes(8, "little") + told + rest)
    elif file.suffix == ".json" and chance.random() < 0.7:
        file.write_text(retold(json.loads(content), chance))
    else:
        file.write_bytes(damaged(content, chance))
    return file.name
