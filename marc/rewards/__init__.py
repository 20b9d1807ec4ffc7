"""Rewards of C-GRPO: accuracy and format as TRL reward functions, retention and order as functions of a group."""

from marc.rewards.accuracy import accuracy_reward
from marc.rewards.format import format_reward
from marc.rewards.retention import RetentionConfig, retention_ratio, retention_reward
from marc.rewards.temporal import TemporalConfig, temporal_reward

__all__ = [
    "RetentionConfig",
    "TemporalConfig",
    "accuracy_reward",
    "format_reward",
    "retention_ratio",
    "retention_reward",
    "temporal_reward",
]
