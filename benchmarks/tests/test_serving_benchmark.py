"""The benchmark of the server, as small as it can be."""

import re

from benchmarks.serving_benchmark import Asked, main, write_questions


def test_questions_are_about_all_videos_and_as_many_as_are_asked_for(tmp_path):
    asked = write_questions(tmp_path, videos=2, questions=5)
    assert len(asked) == 5 and {each.video.name for each in asked} == {"0.mp4", "1.mp4"}
    assert all(isinstance(each, Asked) and each.question for each in asked)


def test_a_round_tells_both_times_and_their_ratios(capsys):
    main(["--videos", "1", "--questions", "2", "--clients", "2", "--repeats", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    seconds = [float(number) for number in re.findall(r"(\d+\.\d+) s", line)]
    wall, processor = (float(number) for number in re.search(r"ratio (\S+) \((\S+)\)", line).groups())
    assert line.startswith("tiny, hf: 2 questions about 1 videos") and line.endswith("; 0 answers that differ")
    assert abs(wall - seconds[2] / seconds[0]) < 0.1 and abs(processor - seconds[3] / seconds[1]) < 0.1
