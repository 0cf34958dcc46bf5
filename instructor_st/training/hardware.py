"""What the machine can do: bfloat16, and cores that accelerate left idle."""

from __future__ import annotations

import os
import warnings

import torch

__all__ = ["is_bfloat16_fast", "use_idle_cores", "warn_of_lone_process"]


def is_bfloat16_fast() -> bool:
    """Whether training in bfloat16 pays here.

    Returns:
        On a GPU, whether it supports bfloat16; on a CPU, whether it has the instructions (AVX512-BF16 or AMX), without
        which bfloat16 is emulated and slower than float32. Elsewhere `False`.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.accelerator.is_available() or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def use_idle_cores(num_processes: int) -> int:
    """Let CPU training use this process's share of the cores.

    `accelerate launch` starts every process with `OMP_NUM_THREADS=1` unless `--num_cpu_threads_per_process` says
    otherwise, so that a plain launch would train on a single core. More than one thread is left as it is.

    Args:
        num_processes: How many processes share the machine.

    Returns:
        The number of threads in use.
    """
    if not torch.accelerator.is_available() and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // num_processes))
    return torch.get_num_threads()


def warn_of_lone_process() -> None:
    """Warn if `accelerate launch --cpu --num_processes N` has started one process only.

    accelerate starts several CPU processes through MPI alone; without it the launcher prepares their meeting point and
    then starts a single one, without a word.
    """
    asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    ranks = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    if asked_for_cpu and "MASTER_PORT" in os.environ and not any(name in os.environ for name in ranks):
        warnings.warn(
            "This is the only process: accelerate needs MPI for several processes on a CPU. Without MPI, say "
            "`ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N ...` or "
            "`torchrun --nproc_per_node N ...`.",
            stacklevel=2,
        )
