"""A pytest plugin: what is imported from TRL as `GRPOTrainer` and `GRPOConfig` is ours."""

import trl

from marc.training import CGRPOConfig, CGRPOTrainer

trl.GRPOTrainer, trl.GRPOConfig = CGRPOTrainer, CGRPOConfig
