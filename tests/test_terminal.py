import logging

import pytest

from marc.terminal import HarmlessFormatter, harmless, in_one_line, log_harmlessly


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläut, 電影, עברית, 🎬", "plain text, ümläut, 電影, עברית, 🎬"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten\b\x7f", "over\\x0dwritten\\x08\\x7f"),
        ("\x9b31m \x00", "\\x9b31m \\x00"),
        ("caf\udce9.mp4", "caf\\xe9.mp4"),
        ("half \ud83d", "half \\ud83d"),
        ("gpj\u202e.mp4\u2066", "gpj\\u202e.mp4\\u2066"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text, shown):
    assert harmless(text) == shown
    assert harmless(shown) == shown
    shown.encode()


def test_a_line_stays_a_line():
    assert in_one_line("a\nmarc: all is well\x1b") == "a\\nmarc: all is well\\x1b"


def test_what_is_logged_is_harmless(capsys, monkeypatch):
    record = logging.LogRecord("marc", logging.WARNING, "", 0, "%s is damaged", ("\x1b[31m.mp4",), None)
    assert HarmlessFormatter().format(record) == "\\x1b[31m.mp4 is damaged"
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    log_harmlessly()
    logging.lastResort.handle(record)
    assert capsys.readouterr().err == "\\x1b[31m.mp4 is damaged\n"
