from __future__ import annotations

import os
import warnings

import pytest
import torch

from instructor_st.training import is_bfloat16_fast, use_idle_cores, warn_of_lone_process


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)]
)
def test_bfloat16_pays_on_cpus_that_compute_in_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert is_bfloat16_fast() is expected


def test_bfloat16_on_other_accelerators_is_left_to_the_user(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert is_bfloat16_fast() is False


def test_idle_cores_are_used_and_chosen_threads_left_alone():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert use_idle_cores(1_000_000) == 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert use_idle_cores(1) == cores
        torch.set_num_threads(3)
        assert use_idle_cores(1) == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("environment", "lone"),
    [
        ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}, True),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}, False),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500", "PMI_SIZE": "2"}, False),
        ({"ACCELERATE_USE_CPU": "False", "MASTER_PORT": "29500"}, False),
        ({"ACCELERATE_USE_CPU": "True"}, False),
    ],
)
def test_a_lone_process_is_noticed(monkeypatch, environment, lone):
    for name in ("ACCELERATE_USE_CPU", "MASTER_PORT", "WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_lone_process()
    assert ["only process" in str(warning.message) for warning in caught] == [True] * lone
