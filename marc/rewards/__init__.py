"""Rewards of C-GRPO: accuracy and format as plain TRL reward functions, retention as a function of one whole group."""

from marc.rewards.accuracy import accuracy_reward
from marc.rewards.format import format_reward
from marc.rewards.retention import RetentionConfig, retention_ratio, retention_reward

__all__ = ["RetentionConfig", "accuracy_reward", "format_reward", "retention_ratio", "retention_reward"]
