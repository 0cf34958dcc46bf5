"""Training: the loss, the sampler, the arguments and the trainer."""

from instructor_st.training.arguments import TrainArguments
from instructor_st.training.hardware import is_bfloat16_fast, use_idle_cores, warn_of_lone_process
from instructor_st.training.loss import MultitaskInstructionLoss
from instructor_st.training.sampler import TaskBatchSampler
from instructor_st.training.trainer import InstructionTrainer, build_losses, set_dropout

__all__ = [
    "InstructionTrainer",
    "MultitaskInstructionLoss",
    "TaskBatchSampler",
    "TrainArguments",
    "build_losses",
    "is_bfloat16_fast",
    "set_dropout",
    "use_idle_cores",
    "warn_of_lone_process",
]
