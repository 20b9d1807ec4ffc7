"""Compares what vLLM answers with what transformers answered."""

from typing import Any

from torch.testing import assert_close


def generate(engine: Any, requests: list[dict[str, Any]], new_tokens: int) -> list[Any]:
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=new_tokens, logprobs=0)
    return [output.outputs[0] for output in engine.generate(requests, sampling, use_tqdm=False)]


def plan_of(item: dict[str, Any]) -> bytes:
    return item["marc_plan"].numpy().tobytes()


def assert_as_expected(engine: Any, expected: Any) -> None:
    """All cases in one batch, prompts at different budgets side by side."""
    longest = max(len(case["tokens"]) for case in expected.cases)
    outputs = generate(engine, [expected.request(case) for case in expected.cases], longest)
    for case, output in zip(expected.cases, outputs, strict=True):
        assert list(output.token_ids) == case["tokens"], case["shown"]
        got = [chosen[token].logprob for token, chosen in zip(case["tokens"], output.logprobs, strict=True)]
        assert_close(got, case["logprobs"], atol=1e-4, rtol=0)
