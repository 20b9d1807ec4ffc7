"""Chat templates are programs that come with a checkpoint; here their work is bounded.

transformers renders them in Jinja's sandbox, which keeps them from Python and from the disk, not from going on for
ever or from filling the memory. A conversation needs some hundred steps of a template and neither products nor powers.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jinja2

MOST_STEPS = 200_000
"""Lines of a compiled template that one rendering may run; a turn runs some ten to thirty."""
MOST_MEMORY = 512 << 10
"""KiB by which the process may grow while one is rendered."""
_REFUSED = frozenset({"*", "**"})
_LONGEST_NUMBER = 6
_LONGEST = 200_000
_CODE = "<template>"


class ChatTemplateError(ValueError):
    """A chat template that does more than write a prompt."""


def check_template(template: Any, where: str) -> None:
    """Refuses templates whose single steps could take for ever: products, powers and huge numbers.

    Args:
        template: A template, or several by name, or None.
        where: The checkpoint.

    Raises:
        ChatTemplateError: Naming what is refused.
    """
    if isinstance(template, Mapping):
        for each in template.values():
            check_template(each, where)
        return
    if template is None:
        return
    if not isinstance(template, str):
        raise ChatTemplateError(f"{where}: a chat template is a text, got {type(template).__name__}")
    if len(template) > _LONGEST:
        raise ChatTemplateError(f"{where}: a chat template of {len(template)} characters; most are {_LONGEST}")
    try:
        for line, kind, token in jinja2.Environment().lex(template):
            if (kind == "operator" and token in _REFUSED) or (kind == "integer" and len(token) > _LONGEST_NUMBER):
                raise ChatTemplateError(
                    f"{where}: line {line} of the chat template has {token[:20]!r}, which none needs"
                )
    except jinja2.TemplateError as error:
        raise ChatTemplateError(f"{where}: the chat template is none: {error}") from error


@contextmanager
def bounded_rendering() -> Iterator[None]:
    """Stops a template that goes on or grows, in this thread.

    Raises:
        ChatTemplateError: It took more than `MOST_STEPS` or `MOST_MEMORY`, or failed.
    """
    steps, before, earlier = 0, _peak(), sys.gettrace()

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != _CODE:
            return None
        steps += 1
        if steps > MOST_STEPS:
            raise ChatTemplateError(f"the chat template runs more than {MOST_STEPS} steps for one prompt")
        if _peak() - before > MOST_MEMORY:
            raise ChatTemplateError(f"the chat template takes more than {MOST_MEMORY >> 10} MiB for one prompt")
        return count

    sys.settrace(count)
    try:
        yield
    except (jinja2.TemplateError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ChatTemplateError(f"the chat template fails: {type(error).__name__}: {error}") from error
    finally:
        sys.settrace(earlier)


def _peak() -> int:
    """Most memory that the process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
