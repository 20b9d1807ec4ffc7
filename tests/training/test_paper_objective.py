"""The recipes of C-GRPO resolve to the paper's objective, and what TRL then computes is that objective."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from tiny_training import GROUP, make_trainer
from torch import Tensor

from marc.training.run import recipe_parser

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(
    path
    for path in (ROOT / "configs").glob("grpo_*.yaml")
    if path.stem.rpartition("_")[2] in ("full", "lora", "qlora")
)
PAPER = {
    "num_generations": 8,  # G
    "tau": 0.6,
    "eta_max": None,  # r_c = alpha max(0, eta - tau), without a limit
    "retention_form": "reward",  # R_i = r_i + 1[correct] r_c
    "rewards": ["accuracy", "format"],  # r_i
    "reward_weights": None,
    "reward_coef": 1.0,
    "multi_objective_aggregation": "sum_then_normalize",
    "scale_rewards": "group",  # A_i = (R_i - mean(R)) / std(R)
    "loss_type": "grpo",  # 1/G sum_i, of means over an answer's tokens
    "importance_sampling_level": "token",
    "delta": None,
    "epsilon_high": None,  # one epsilon on both sides
    "use_bias_correction_kl": False,  # KL(pi || pi_ref) as it stands
    "sync_ref_model": False,
    "top_entropy_quantile": 1.0,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "off_policy_mask_threshold": None,
    "mask_truncated_completions": False,
    "distill_coef": 0.0,
    "layout": "frames",
    "target_frames": 1,
    "max_frames": 64,
    "max_pixels": None,  # the trainer's own: 128 tokens a frame
}
"""What the paper says."""
CONVENTIONS = {
    "alpha": 0.3,  # T-GRPO's bonus
    "correct_above": 0.1,
    "beta": 0.04,
    "epsilon": 0.2,
    "num_iterations": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
    "max_completion_length": 768,
    "max_grad_norm": 5,
    "lr_scheduler_type": "cosine",
    "learning_rate": {"full": 1e-6, "lora": 1e-5, "qlora": 1e-5},
    "freeze_tower": {"full": False, "lora": True, "qlora": True},
}
"""What no text of the paper says, after Video-R1, on which it is built."""


def resolved(recipe: Path, tmp_path: Path) -> dict:
    """A recipe's options as the real parser reads them, on a machine without a GPU."""
    typed = ["--config", str(recipe), "--bf16", "false", "--output_dir", str(tmp_path)]
    options, config = recipe_parser("grpo", typed).parse_args_and_config(typed)
    return {**asdict(options), **asdict(config)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_papers(recipe, tmp_path):
    values, weights = resolved(recipe, tmp_path), recipe.stem.rpartition("_")[2]
    for name, expected in {**PAPER, **CONVENTIONS}.items():
        expected = expected[weights] if isinstance(expected, dict) else expected
        assert values[name] == expected, name


def test_our_recipe_says_what_it_has_of_its_own():
    paper, ours = (
        yaml.safe_load((ROOT / "configs" / f"grpo_3b_{name}.yaml").read_text()) for name in ("full", "ours")
    )
    own = {name: value for name, value in ours.items() if paper.get(name) != value}
    assert paper.keys() <= ours.keys()
    assert own.keys() == {"output_dir", "retention_form", "loss_type", "beta", "dynamic_sampling"}


def papers_loss(logps: Tensor, old: Tensor, ref: Tensor, mask: Tensor, advantages: Tensor, values: dict) -> Tensor:
    """``-1/G sum_i 1/|o_i| sum_t min(ratio A, clip(ratio) A) - beta KL``, KL by the estimator ``e^x - x - 1``."""
    total = logps.new_zeros(())
    for i, present in enumerate(mask.bool()):
        ratio = (logps[i, present] - old[i, present]).exp()
        clipped = ratio.clamp(1 - values["epsilon"], 1 + values["epsilon"])
        gain = torch.minimum(ratio * advantages[i], clipped * advantages[i])
        x = ref[i, present] - logps[i, present]
        total = total + (gain - values["beta"] * (x.exp() - x - 1)).mean()
    return -total / len(mask)


def test_the_loss_is_the_papers(files, rows, tmp_path):
    """Value and gradient, away from the policy that sampled and from the reference."""
    values = resolved(ROOT / "configs" / "grpo_3b_full.yaml", tmp_path)
    knobs = {name: values[name] for name in {**PAPER, **CONVENTIONS} if name.startswith(("loss", "scale", "import"))}
    knobs |= {name: values[name] for name in ("use_bias_correction_kl", "beta", "epsilon", "num_iterations")}
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=True, **knobs)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (0, 1) for _ in range(GROUP)])
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.cat((batch["prompt_ids"], batch["completion_ids"]), 1), batch["completion_mask"]
    mask[0, -2:] = 0  # answers of different lengths
    present = torch.cat((batch["prompt_mask"], mask), 1)
    trainer.current_gradient_accumulation_steps = 1
    trainer._row_visuals, trainer._budget = batch["visuals"], batch["budgets"][0]
    logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, present, mask.shape[1])
    near = [logps.detach() + 0.4 * torch.randn(logps.shape, generator=generator) for _ in range(2)]
    batch |= {"old_per_token_logps": near[0], "ref_per_token_logps": near[1]}
    batch["advantages"] = torch.tensor([1.5, -0.5, 0.25, -2.0])
    expected = papers_loss(logps, *near, mask, batch["advantages"], values)
    assert ((logps.detach() - near[0]).exp() - 1).abs().max() > values["epsilon"], "nothing was clipped"
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    wanted = torch.autograd.grad(expected, weights)
    loss = trainer._compute_loss(trainer.model, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for own, other in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-6)
