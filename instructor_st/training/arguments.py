"""What `training_scripts/train.py` can be told, on top of the trainer's own arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import MultiDatasetBatchSamplers

from instructor_st.training.hardware import is_bfloat16_fast
from instructor_st.training.sampler import TaskBatchSampler

__all__ = ["TrainArguments"]


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
        temperature: The loss's temperature.
        precision: `bfloat16` (mixed), `float32`, or `auto`: bfloat16 where the machine computes in it.
        dropout: Overrides every dropout probability of the model.
    """

    output_dir: str = field(default="outputs/instructor-starter", metadata={"help": "Where the model is saved."})
    base: str | None = field(
        default=None, metadata={"help": "Encoder or instruction model to start from; the bundled one if not given."}
    )
    architecture: str = field(default="prepend", metadata={"help": "prepend or dual.", "choices": ["prepend", "dual"]})
    data: str | None = field(default=None, metadata={"help": "A folder (or file) of rows."})
    held_out_share: float = field(default=0.1, metadata={"help": "Share of each task that is held out."})
    max_held_out_per_task: int = field(default=100, metadata={"help": "Cap on held-out queries a task."})
    max_rows_per_task: int | None = field(
        default=None, metadata={"help": "Cap on training rows a task; the starter has 4 by default."}
    )
    query_instruction: str = field(default="", metadata={"help": "Instruction of queries that bring none."})
    document_instruction: str = field(default="", metadata={"help": "Instruction of documents that bring none."})
    temperature: float = field(default=0.05, metadata={"help": "Temperature of the loss."})
    precision: str = field(
        default="auto", metadata={"help": "auto, bfloat16 or float32.", "choices": ["auto", "bfloat16", "float32"]}
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
        # Without saying so, transformers refuses bfloat16 on a CPU and takes CPU processes for strangers.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.precision == "bfloat16" or (self.precision == "auto" and not self.fp16 and is_bfloat16_fast()):
            self.bf16 = True
        super().__post_init__()
        # sentence-transformers' default hands different tasks to different processes; ours takes its place.
        if self.multi_dataset_batch_sampler == MultiDatasetBatchSamplers.PROPORTIONAL:
            self.multi_dataset_batch_sampler = TaskBatchSampler
