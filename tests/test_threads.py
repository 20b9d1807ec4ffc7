"""Small models run in one thread, and leave what was set as it was."""

import pytest
import torch

from marc.threads import SMALL, threads_for


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_small_model_has_one_thread_and_what_was_set_comes_back():
    with threads_for(torch.nn.Linear(2, 2)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), threads_for(torch.nn.Linear(2, 2)):
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_a_large_one_and_one_elsewhere_have_all(where):
    model = torch.nn.Module()
    numbers = torch.empty(1, device=where)
    model.weight = torch.nn.Parameter(numbers.expand(SMALL + (where == "cpu")), requires_grad=False)
    with threads_for(model):
        assert torch.get_num_threads() == 2
