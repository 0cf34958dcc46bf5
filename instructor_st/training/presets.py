"""Settings that go together: for a first run, for the paper's training, for one accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # The defaults of TrainArguments: the registry's worked examples in less than four minutes on two CPU cores.
        "starter": MappingProxyType({}),
        # What Su et al. publish (arXiv 2212.09741, section 3, and the README of their code): AdamW, rate 2e-5, warm-up 0.1,
        # temperature 0.01, 512 tokens, 20,000 steps from a GTR checkpoint. They name no batch size; 64 is ours.
        "paper": MappingProxyType(
            {
                "learning_rate": 2e-5,
                "warmup_steps": 0.1,
                "temperature": 0.01,
                "max_seq_length": 512,
                "max_steps": 20_000,
                "per_device_train_batch_size": 64,
                "mini_batch_size": 16,
                "save_strategy": "steps",
                "save_steps": 1000,
                "logging_steps": 50,
            }
        ),
        # One GPU of 16 GB or more: a large batch in small parts, whose memory does not grow with the batch.
        "single-gpu": MappingProxyType(
            {
                "learning_rate": 5e-5,
                "warmup_steps": 0.05,
                "num_train_epochs": 1.0,
                "per_device_train_batch_size": 512,
                "mini_batch_size": 64,
                "save_strategy": "steps",
                "save_steps": 200,
                "eval_strategy": "steps",
                "eval_steps": 200,
                "load_best_model_at_end": True,
                "metric_for_best_model": "eval_held_out_mean_reciprocal_rank",
                "greater_is_better": True,
                "logging_steps": 20,
            }
        ),
    }
)
"""Presets by name: values of `TrainArguments`, which a configuration file and flags override."""
