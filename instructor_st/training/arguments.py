"""What `training_scripts/train.py` can be told, on top of the trainer's own arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import MultiDatasetBatchSamplers

from instructor_st.training.best_metric import check_evaluations
from instructor_st.training.hardware import is_bfloat16_fast
from instructor_st.training.sampler import TaskBatchSampler

__all__ = ["TrainArguments"]

_ARCHITECTURES = ("prepend", "dual")
_PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass
class TrainArguments(SentenceTransformerTrainingArguments):
    """sentence-transformers' training arguments, with defaults for the starter run, and these.

    Attributes:
        base: The encoder, or the instruction model, to start from: a folder or a Hub id; by default the bundled
            all-MiniLM-L6-v2.
        architecture: `prepend` or `dual`, where the base is a plain encoder.
        data: A folder of rows (JSONL, CSV, Parquet; gzip too); by default the worked examples of the task registry.
        held_out_share: The share of each task to hold out for evaluation where the data are not split already.
        max_held_out_per_task: Hold out at most so many queries a task.
        max_rows_per_task: Train on at most so many rows a task; by default all, and four a task of the starter mixture.
        query_instruction: The instruction of queries that bring none.
        document_instruction: The instruction of documents that bring none.
        skip_broken_files: Leave out data files that hold a record that is no row, with the reason, instead of stopping.
        temperature: The loss's temperature.
        mini_batch_size: Embed so many texts at a time (GradCache), so that memory does not grow with the batch.
        mini_batch_num_tokens: The same by tokens.
        loss_settings: More settings of every task's loss (`LossSettings`), as JSON or a mapping.
        task_loss_settings: Settings of single tasks' losses by task; they come before those of a mixture's manifest.
        guide: A sentence-transformers model that says which negatives are false ones, where `loss_settings` have a
            `false_negative_margin`.
        matryoshka_dims: Train these dimensions of the embedding too, the largest first (arXiv 2205.13147).
        task_weights: How often tasks are seen, by task; they come before those of a mixture's manifest.
        task_alpha: A task of n rows is seen in proportion to its weight times n to this power; 1 sees each row once.
        max_repeats: No row is seen more often than this in an epoch.
        max_seq_length: The window in tokens; by default the base's.
        freeze: Shell patterns of names of parameters that are not trained.
        lora_rank: Train low-rank adapters of this rank in place of the backbone's weights.
        lora_alpha: Their scale times the rank; twice the rank by default.
        lora_dropout: The probability of their dropout.
        resume: Go on from the last whole checkpoint in `output_dir`, or begin if there is none.
        overwrite: Begin anew where `output_dir` holds checkpoints of an earlier run, and delete those.
        precision: `bfloat16` (mixed), `float32`, or `auto`: bfloat16 where the machine computes in it.
        dropout: Overrides every dropout probability of the model.
    """

    output_dir: str = field(default="outputs/instructor-starter", metadata={"help": "Where the model is saved."})
    base: str | None = field(
        default=None, metadata={"help": "Encoder or instruction model to start from; the bundled one if not given."}
    )
    architecture: str = field(default="prepend", metadata={"help": "prepend or dual.", "choices": list(_ARCHITECTURES)})
    data: str | None = field(default=None, metadata={"help": "A folder (or file) of rows."})
    held_out_share: float = field(default=0.1, metadata={"help": "Share of each task that is held out."})
    max_held_out_per_task: int = field(default=100, metadata={"help": "Cap on held-out queries a task."})
    max_rows_per_task: int | None = field(
        default=None, metadata={"help": "Cap on training rows a task; the starter has 4 by default."}
    )
    query_instruction: str = field(default="", metadata={"help": "Instruction of queries that bring none."})
    document_instruction: str = field(default="", metadata={"help": "Instruction of documents that bring none."})
    skip_broken_files: bool = field(default=False, metadata={"help": "Leave out data files with a broken record."})
    temperature: float = field(default=0.05, metadata={"help": "Temperature of the loss."})
    mini_batch_size: int | None = field(
        default=None, metadata={"help": "Texts embedded at a time (GradCache): flat memory in the batch size."}
    )
    mini_batch_num_tokens: int | None = field(default=None, metadata={"help": "The same by tokens."})
    loss_settings: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "More settings of every task's loss (LossSettings), as JSON."}
    )
    task_loss_settings: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Settings of single tasks' losses by task, as JSON."}
    )
    guide: str | None = field(default=None, metadata={"help": "A model that tells false negatives."})
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Dimensions of the embedding to train too."}
    )
    task_weights: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "How often tasks are seen, by task, as JSON."}
    )
    task_alpha: float = field(
        default=1.0, metadata={"help": "Tasks of n rows are seen in proportion to n to this power."}
    )
    max_repeats: int = field(default=4, metadata={"help": "How often a row is seen in an epoch at most."})
    max_seq_length: int | None = field(default=None, metadata={"help": "The window in tokens."})
    freeze: list[str] | None = field(
        default=None, metadata={"help": "Shell patterns of parameter names that are not trained."}
    )
    lora_rank: int | None = field(default=None, metadata={"help": "Train adapters of this rank."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of the adapters times the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapters."})
    resume: bool = field(default=False, metadata={"help": "Go on from the last whole checkpoint in output_dir."})
    overwrite: bool = field(
        default=False, metadata={"help": "Begin anew and delete an earlier run's checkpoints in output_dir."}
    )
    precision: str = field(
        default="auto", metadata={"help": "auto, bfloat16 or float32.", "choices": list(_PRECISIONS)}
    )
    dropout: float | None = field(default=None, metadata={"help": "Overrides the model's dropout."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows a process and step."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warmup steps; a share of all steps if below 1."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    save_strategy: str = field(default="epoch", metadata={"help": "When checkpoints are written: no, steps or epoch."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints are kept."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Pin memory for the GPU."}
    )
    report_to: str = field(default="none", metadata={"help": "Trackers, such as tensorboard."})

    def __post_init__(self) -> None:
        for name in ("loss_settings", "task_loss_settings", "task_weights"):
            setattr(self, name, _read_mapping(name, getattr(self, name)))
        for name, choices in (("architecture", _ARCHITECTURES), ("precision", _PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        self.freeze = _read_list("freeze", self.freeze, str)
        self.matryoshka_dims = _read_list("matryoshka_dims", self.matryoshka_dims, int)
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other.")
        # Without saying so, transformers refuses bfloat16 on a CPU and takes CPU processes for strangers.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.precision == "bfloat16" or (self.precision == "auto" and not self.fp16 and is_bfloat16_fast()):
            self.bf16 = True
        # transformers' default is the evaluation loss, which an evaluator does not give.
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "eval_held_out_accuracy"
        # Before transformers', which only says that eval_strategy and save_strategy differ.
        check_evaluations(self)
        super().__post_init__()
        # sentence-transformers' default hands different tasks to different processes; ours takes its place.
        if self.multi_dataset_batch_sampler == MultiDatasetBatchSamplers.PROPORTIONAL:
            self.multi_dataset_batch_sampler = TaskBatchSampler


def _read_mapping(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is no JSON ({error}): {value!r}.") from None
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, not {value!r}.")
    return dict(value or {})


def _read_list(name: str, value: Any, kind: type) -> Any:
    """Take a single value for a list of one, as the flag does."""
    values = value if isinstance(value, (list, tuple)) or value is None else [value]
    if values is not None and not all(isinstance(each, kind) and not isinstance(each, bool) for each in values):
        raise ValueError(f"{name} must be a list of {kind.__name__}, not {value!r}.")
    return values if values is None else list(values)
