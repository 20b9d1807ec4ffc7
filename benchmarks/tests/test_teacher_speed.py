"""The benchmark of the teacher, as small as it can be, against this checkout."""

from benchmarks.teacher_speed import HERE, Run, run, table, write_rows


def test_a_checkout_answers_all_rows(tmp_path):
    rows = write_rows(tmp_path, videos=1, questions=2)
    found = run(HERE, rows, ["--samples", "2", "--max-new-tokens", "4"])
    assert [len(texts) for texts in found.answers] == [2, 2]
    assert found.wall > 0.1 and found.processor > 0.1


def test_the_table_says_how_many_times_as_many_and_what_differs():
    here, there = Run(1.0, 2.0, [["a"], ["b"]]), Run(4.0, 5.0, [["a"], ["c"]])
    text = table([here, here], [there, Run(6.0, 5.0, there.answers)], "before")
    assert "| questions a second (wall) | 2.00 | 0.40 | 5.00 [4.00, 6.00] |" in text
    assert "| questions a second (processor) | 1.00 | 0.40 | 2.50 [2.50, 2.50] |" in text
    assert text.endswith("1 of 2 rows have the same answers.")
