"""Steps of another checkout's trainer are timed by its own processor time, and both checkouts run in turn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import timed_training, training_step
from benchmarks.timed_training import Parts
from benchmarks.training_step import Pair, Run, Shape, compare, differences, main, run, table

SCRIPT = """
import sys, time
from pathlib import Path

import marc, torch
from transformers import HfArgumentParser, Trainer, TrainingArguments


class Busy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.seconds = torch.nn.Parameter(torch.ones(1)), iter([0.8] + 9 * [0.2])

    def forward(self, x, labels=None):
        end = time.process_time() + next(self.seconds)
        while time.process_time() < end:
            pass
        time.sleep(0.5)
        return {"loss": (self.weight * x).mean()}


(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(sys.argv[3:])
rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 8
Trainer(Busy(), arguments, train_dataset=rows).train()
Path(arguments.output_dir, "config.yaml").write_text(Path(sys.argv[2]).read_text())
"""
SHAPE = Shape("train.py", "recipe.yaml", steps=3, options=("--per_device_train_batch_size", "1", "--use_cpu", "true"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "marc").mkdir()
    (tmp_path / "marc" / "__init__.py").touch()
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "recipe.yaml").write_text("alpha: 0.3\n")
    return tmp_path


def made_up(*steps: float, **options: object) -> Run:
    return Run(steps, sum(steps), sum(steps) + 9, 10**9, 20.0, (0.5, 0.4), {}, options)


def test_steps_are_timed_by_the_processor(checkout: Path):
    found = run(checkout, SHAPE)
    assert len(found.steps) == 3
    assert found.steps[0] == pytest.approx(0.8, abs=0.4), "it does not count what it waits"
    assert found.steps[1:] == pytest.approx((0.2, 0.2), abs=0.25)
    assert sum(found.steps) <= found.training < found.process
    assert found.peak_bytes > 100e6
    assert found.gradient_norms == (1.0, 1.0, 1.0)
    assert found.options == {"alpha": 0.3}


def test_another_checkout_than_asked_for_is_refused(tmp_path: Path):
    """Where there is none, Python would find this one."""
    with pytest.raises(FileNotFoundError, match="no checkout of this project"):
        run(tmp_path, SHAPE)


def test_checkouts_take_turns(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    order = []
    monkeypatch.setattr(training_step, "HERE", checkout / "..", raising=True)
    shape = Shape(f"{checkout.name}/train.py", f"{checkout.name}/recipe.yaml")
    monkeypatch.setattr(training_step, "run", lambda folder, _: order.append(folder) or made_up(len(order), 1.0))
    there = checkout.parent
    pairs = compare(there, shape, 2)
    assert order == [checkout / "..", there, there, checkout / ".."]
    assert [(pair.here.steps[0], pair.there.steps[0]) for pair in pairs] == [(1, 2), (4, 3)]


def test_the_table_gives_the_other_as_a_multiple():
    pairs = [Pair(made_up(5.0, 1.0, 1.2, 1.1), made_up(6.0, 3.3, 3.3, 3.3))]
    pairs.append(Pair(made_up(5.0, 1.0, 1.0, 1.0), made_up(6.0, 3.6, 3.5, 3.7)))
    lines = table(pairs, "../before").splitlines()
    assert lines[0] == "| 2 rounds, one thread | here | ../before | times [range] |"
    assert lines[2] == "| step after the first, median, s | 1.05 | 3.45 | 3.30 [3.00, 3.60] |"
    assert lines[3] == "| first step, s | 5 | 6 | 1.20 [1.20, 1.20] |"


def test_recipes_that_differ_are_named():
    here = made_up(1.0, 1.0, tau=0.6, output_dir="a", new=1)
    there = made_up(1.0, 1.0, tau=0.5, output_dir="b", old=2)
    assert differences(Pair(here, there)) == ["tau: 0.6 here, 0.5 there"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "1"], "--steps must be at least 2"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--script", "nothing.py"], "has no nothing.py"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--against", str(training_step.HERE), *arguments])
    assert message in capsys.readouterr().err


def test_parts_do_not_count_what_runs_inside_them(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timed_training.time, "process_time", lambda: now[0])

    def work(seconds):
        now[0] += seconds

    class Trainer:
        accelerator = SimpleNamespace(backward=lambda loss: work(4))

        def _encoded(self):
            work(1)

        def _generate_single_turn(self):
            work(2)
            self._encoded()

        def _get_per_token_logps_and_entropies(self):
            work(3)

    trainer = Trainer()
    parts = Parts(trainer)
    trainer._generate_single_turn()
    trainer._encoded()
    with torch.no_grad():
        trainer._get_per_token_logps_and_entropies()
    trainer._get_per_token_logps_and_entropies()
    trainer.accelerator.backward(None)
    assert parts.seconds == {
        "vision tower": 2.0,
        "answers (rollout)": 2.0,
        "log-probabilities without gradients": 3.0,
        "forward with gradients": 3.0,
        "backward": 4.0,
    }
    assert training_step._parts({"backward": 4.0}, [3.0, 3.0]) == {"backward": 2.0, "the rest": 1.0}


def test_a_table_names_the_parts_of_either_side():
    one, other = made_up(1.0, 1.0), replace(made_up(1.0, 2.0), parts={"backward": 0.5})
    assert "| a step's backward, s | 0 | 0.5 |" in table([Pair(one, other)], "there")
