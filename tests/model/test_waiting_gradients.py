"""Gradients of copies reach what they were copies of, whole, with the first pass that takes them."""

import pytest
import torch

from marc.model.waiting_gradients import WaitingGradients


def test_they_add_up_in_float32():
    """One by one, 256 + 1 is 256 in bfloat16."""
    waiting, weight = WaitingGradients(), torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    for factor in (256.0, 1.0, 1.0):
        (factor * waiting.leaf("a", 1.0 * weight)).sum().backward()
    assert weight.grad is None and len(waiting) == 1
    values = 1.0 * weight
    waiting.join("a", values)
    (2.0 * values).sum().backward()
    assert weight.grad.tolist() == [260.0] * 3 and not waiting


@pytest.mark.parametrize("places", [None, torch.tensor([3, 1])])
def test_they_go_where_the_copies_came_from(places):
    waiting, weight = WaitingGradients(), torch.arange(4.0, dtype=torch.float64, requires_grad=True)
    leaf = waiting.leaf("a", weight if places is None else weight[places])
    factors = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)[: len(leaf)]
    (factors * leaf**2).sum().backward()
    values = 1.0 * weight
    waiting.join("a", values, places)
    values.sum().backward()
    again = weight.detach().clone().requires_grad_()
    ((factors * (again if places is None else again[places]) ** 2).sum() + again.sum()).backward()
    torch.testing.assert_close(weight.grad, again.grad)


def test_of_what_has_no_gradient_they_are_dropped():
    waiting, fixed = WaitingGradients(), torch.ones(2)
    waiting.leaf("a", fixed).sum().backward()
    waiting.join("a", fixed)
    waiting.join("b", fixed)
    assert not waiting
