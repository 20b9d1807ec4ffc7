"""Questions from a file: every row has its answer, also after an interruption, and bad rows are named."""

import json
from dataclasses import replace

import jsonschema
import pytest
from record_schema import schema

from marc import Clip
from marc.inference.batch import BatchAnswers, BatchQuestion, answer_all, read_questions
from marc.types import Answer


class Scripted:
    """Answers with the number of questions that it was asked."""

    def __init__(self, fails=()):
        self.asked, self.fails = [], fails

    def ask(self, clips, question, options):
        self.asked.append(question)
        if question in self.fails:
            raise ValueError(f"{clips[0].source}: cannot be read")
        return Answer(str(len(self.asked)), "", question=question)


def questions(count):
    return [BatchQuestion(str(number), (Clip("a.mp4"),), f"What is {number}?") for number in range(count)]


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows_are_read_in_all_their_forms(tmp_path):
    file = tmp_path / "questions.jsonl"
    given = [
        {"video": "a.mp4", "question": "What?"},
        {"id": "x", "video": ["/b.mp4", {"source": "c.png"}], "question": "Which?", "options": ["A. one", "B. two"]},
        {"id": 7, "video": {"source": "a.mp4", "start": 1, "end": 2.5}, "question": "When?"},
    ]
    file.write_text("\n\n".join(map(json.dumps, given)))
    first, second, third = read_questions(file)
    assert first == BatchQuestion("1", (Clip(tmp_path / "a.mp4"),), "What?")
    assert [str(clip.source) for clip in second.clips] == ["/b.mp4", str(tmp_path / "c.png")]
    assert second.options == ("A. one", "B. two")
    assert third == BatchQuestion("7", (Clip(tmp_path / "a.mp4", 1.0, 2.5),), "When?")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("3", "line 2: a row is an object with id, video, question, options, got int"),
        ('{"question": "What?"}', "line 2: there is no 'video'"),
        ('{"video": "a.mp4"}', "line 2: there is no 'question'"),
        ('{"video": "a.mp4", "question": " "}', "line 2: the question is empty"),
        ('{"video": [], "question": "What?"}', "line 2: there is no video"),
        ('{"video": 3, "question": "What?"}', "line 2: a video is a path, or an object with source, start and end"),
        ('{"video": {"source": "a", "begin": 1}, "question": "What?"}', "line 2: a video is a path, or an object"),
        ('{"video": {"source": "a", "start": 9, "end": 1}, "question": "?"}', "line 2: .*needs 0 <= start < end"),
        ('{"video": {"source": "a", "start": "x"}, "question": "?"}', "line 2: could not convert"),
        ('{"video": "a", "question": "?", "options": "A"}', "line 2: options are a list of texts"),
        ('{"video": "a", "question": "?", "Options": []}', "line 2: a row has id, video, question, options, not Opt"),
        ('{"video": "a", "question": "What?", "id": 1}', "line 2: the id '1' was there before"),
        ("[" * 100_000, "line 2: "),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, line, message):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"video": "a.mp4", "question": "What?"}\n' + line)
    with pytest.raises(ValueError, match=rf"questions\.jsonl, {message}"):
        read_questions(file)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "questions.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="there is no question in it"):
        read_questions(tmp_path / "questions.jsonl")


def test_every_answer_is_a_row_that_keeps_to_the_schema(tmp_path):
    answers = BatchAnswers(tmp_path / "new" / "answers.jsonl", "settings")
    asked = questions(3)
    done = list(answer_all(Scripted(), answers.open(asked), answers))
    assert [(question.id, problem) for question, problem in done] == [("0", ""), ("1", ""), ("2", "")]
    for row, question in zip(rows(answers.file), asked, strict=True):
        jsonschema.validate(row, schema())
        assert (row["id"], row["question"], row["status"]) == (question.id, question.question, "ok")


@pytest.mark.parametrize("cut", range(0, 900, 7))
def test_after_a_kill_anywhere_only_what_is_missing_is_asked(tmp_path, cut):
    """A file cut at any byte goes on to hold the same ids, each once."""
    answers, asked = BatchAnswers(tmp_path / "answers.jsonl", "settings"), questions(3)
    list(answer_all(Scripted(), answers.open(asked), answers))
    whole = answers.file.read_bytes()
    answers.file.write_bytes(whole[: min(cut, len(whole))])
    complete = whole[: min(cut, len(whole))].count(b"\n")
    again = Scripted()
    list(answer_all(again, answers.open(asked), answers))
    assert again.asked == [question.question for question in asked[complete:]]
    assert [row["id"] for row in rows(answers.file)] == ["0", "1", "2"]


def test_a_failure_is_a_row_and_is_asked_again_if_wanted(tmp_path):
    answers, asked = BatchAnswers(tmp_path / "answers.jsonl", "settings"), questions(3)
    done = list(answer_all(Scripted(fails=["What is 1?"]), answers.open(asked), answers))
    assert done[1][1] == "a.mp4: cannot be read"
    assert rows(answers.file)[1]["reason"] == "a.mp4: cannot be read"
    assert answers.open(asked) == []
    patient = replace(answers, retry_failed=True)
    assert patient.open(asked) == [asked[1]]
    list(answer_all(Scripted(), patient.open(asked), patient))
    assert patient.open(asked) == []


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ("others", {}),
        ("settings", {"question": "What else?"}),
        ("settings", {"clips": (Clip("b.mp4"),)}),
        ("settings", {"clips": (Clip("a.mp4", 1.0),)}),
        ("settings", {"options": ("A. one",)}),
        ("settings", {"id": "another"}),
    ],
)
def test_answers_to_something_else_are_not_taken_for_these(tmp_path, settings, change):
    answers = BatchAnswers(tmp_path / "answers.jsonl", "settings")
    list(answer_all(Scripted(), answers.open(questions(1)), answers))
    with pytest.raises(ValueError, match="holds answers to other questions or of other options"):
        replace(answers, settings=settings).open([replace(questions(1)[0], **change)])


def test_more_questions_may_be_added(tmp_path):
    answers = BatchAnswers(tmp_path / "answers.jsonl", "settings")
    list(answer_all(Scripted(), answers.open(questions(2)), answers))
    assert [question.id for question in answers.open(questions(4))] == ["2", "3"]
