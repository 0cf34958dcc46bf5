"""Training: losses, sampler, settings, trainer."""

from instructor_st.training.arguments import TrainArguments
from instructor_st.training.assembly import (
    build_trainer,
    find_resume_point,
    format_mixture_table,
    load_trained_model,
    plan_training,
)
from instructor_st.training.checkpoints import CheckpointError, find_last_checkpoint
from instructor_st.training.configuration import ConfigurationError, format_configuration, parse_train_arguments
from instructor_st.training.duration import DurationEstimate, estimate_duration
from instructor_st.training.finetune import FinetuneResult, finetune_instructions, predict
from instructor_st.training.finetune_settings import FinetuneSettings
from instructor_st.training.hardware import is_bfloat16_fast, use_idle_cores, warn_of_lone_process
from instructor_st.training.heads import restore_head, store_head
from instructor_st.training.loss import MultitaskInstructionLoss
from instructor_st.training.presets import PRESETS
from instructor_st.training.sampler import TaskBatchSampler, make_task_batch_sampler
from instructor_st.training.supervised_contrastive import SupervisedContrastiveLoss
from instructor_st.training.task_log import NonFiniteLossError
from instructor_st.training.task_losses import LossSettings, TaskLossSpec, build_losses
from instructor_st.training.trainable import add_lora, count_parameters, freeze_parameters, merge_lora
from instructor_st.training.trainer import InstructionTrainer, set_dropout
from instructor_st.training.tuning_report import TuningReport

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConfigurationError",
    "DurationEstimate",
    "FinetuneResult",
    "FinetuneSettings",
    "InstructionTrainer",
    "LossSettings",
    "MultitaskInstructionLoss",
    "NonFiniteLossError",
    "SupervisedContrastiveLoss",
    "TaskBatchSampler",
    "TaskLossSpec",
    "TrainArguments",
    "TuningReport",
    "add_lora",
    "build_losses",
    "build_trainer",
    "count_parameters",
    "estimate_duration",
    "find_last_checkpoint",
    "find_resume_point",
    "finetune_instructions",
    "format_configuration",
    "format_mixture_table",
    "freeze_parameters",
    "is_bfloat16_fast",
    "load_trained_model",
    "make_task_batch_sampler",
    "merge_lora",
    "parse_train_arguments",
    "plan_training",
    "predict",
    "restore_head",
    "set_dropout",
    "store_head",
    "use_idle_cores",
    "warn_of_lone_process",
]
