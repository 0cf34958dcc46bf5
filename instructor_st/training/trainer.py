"""The trainer: sentence-transformers' own, with batches of one task, losses by task and checkpoints that are whole."""

from __future__ import annotations

import copy
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor, nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from instructor_st.training.best_metric import check_best_metric
from instructor_st.training.checkpoints import CheckpointError, find_last_checkpoint, mark_whole, remove_mark
from instructor_st.training.task_log import NonFiniteLossError, TaskLog
from instructor_st.training.trainable import has_lora, merge_lora

__all__ = ["InstructionTrainer", "set_dropout"]

_TRAINED = "trained_parameters.safetensors"


class InstructionTrainer(SentenceTransformerTrainer):
    """`SentenceTransformerTrainer` that logs each task, stops at a loss that is no number, and saves all or nothing.

    The log (and whatever `report_to` names) gets `loss/TASK`, `accuracy/TASK` (the share of queries whose positive scored
    highest in the batch) and `accuracy` beside `loss`; the terminal shows the overall figures only. A checkpoint is marked
    when its last file is written, and older ones are deleted after that. The model card has no data samples.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task_log = TaskLog()
        for callback, quiet in ((ProgressCallback, _QuietProgressCallback), (PrinterCallback, _QuietPrinterCallback)):
            if self.pop_callback(callback) is not None:
                self.add_callback(quiet)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the callback out: its card prints rows of the training data, which may not be ours to publish."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Compute the loss of a batch, and note it for the log.

        Args:
            model: The model.
            inputs: The batch; `dataset_name` is its task.
            return_outputs: As in transformers.
            num_items_in_batch: As in transformers.

        Returns:
            The loss, with empty outputs if they are asked for.

        Raises:
            NonFiniteLossError: If the loss is not finite (on an accelerator, when the log or a checkpoint is written).
        """
        task = inputs.get("dataset_name")
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if model.training:
            loss = result[0] if isinstance(result, tuple) else result
            loss_module = self.loss.get(task) if isinstance(self.loss, dict) and task else self.loss
            self.task_log.add(str(task or "all"), loss, _find_accuracy(loss_module))
            if loss.device.type == "cpu":
                self._check_losses()
        return result

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and say if there is no best model to load at the end, as transformers does not.

        Args:
            *args: As in transformers.
            **kwargs: As in transformers.

        Returns:
            As in transformers.

        Raises:
            BestMetricError: If `metric_for_best_model` is not among what the first evaluation gives.
            CheckpointError: If a checkpoint cannot be written, or the best one not be loaded.
            NonFiniteLossError: If a loss or a weight is not finite.
        """
        output = super().train(*args, **kwargs)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None:
            warnings.warn(
                f"load_best_model_at_end: no evaluation had a value of {self.args.metric_for_best_model} that was saved, so "
                "the model is that of the last step.",
                stacklevel=2,
            )
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the tasks' figures where the training loss is logged.

        Args:
            logs: The values.
            start_time: When training began.
        """
        # The last entry has train_loss alone.
        if "loss" in logs or "train_loss" in logs:
            self._check_losses()
        if "loss" in logs:
            several = self.accelerator.num_processes > 1
            logs = {**logs, **self.task_log.take(self._sum_over_processes if several else None)}
        super().log(logs, start_time)

    def save_final_model(self, folder: str | Path) -> Path:
        """Save the model so that the folder is there in full or not at all.

        Args:
            folder: Where the model goes; a model that lies there is replaced.

        Returns:
            The folder.

        Raises:
            CheckpointError: If it cannot be written; what lay in the folder is still there then.
            NonFiniteLossError: If weights are not finite.
        """
        folder = Path(folder)
        self._check_weights()
        if self.is_world_process_zero():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                self.model.save_pretrained(str(partial))
            except Exception as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise self._explain_failed_write(folder, error) from error
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        self.accelerator.wait_for_everyone()
        return folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_losses()
        self._check_weights()
        run_folder = Path(self._get_output_dir(trial=trial))
        folder = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        limit = self.args.save_total_limit
        if self.args.should_save:
            # Where an earlier run left one of this step, its mark would vouch for a mixture of two.
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        # The older checkpoints stay until the new one is marked.
        self.args.save_total_limit = None
        try:
            if self.args.should_save:
                remove_mark(folder)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_whole(folder)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise self._explain_failed_write(folder, error) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_folder),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                # A run that went back to an earlier step finds higher numbers; they are the older ones.
                use_mtime=True,
            )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not has_lora(self.model):
            super()._save(output_dir, state_dict)
            return
        # A checkpoint is a whole model for whoever loads it, and has the adapters apart, for going on.
        folder, model = Path(output_dir or str(self.args.output_dir)), self.model
        self.model = copy.deepcopy(model)
        merge_lora(self.model)
        try:
            super()._save(str(folder), state_dict)
        finally:
            self.model = model
        trained = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
        save_file(trained, folder / _TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        file = Path(resume_from_checkpoint) / _TRAINED
        if not has_lora(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint)
        elif file.exists():
            self.model.load_state_dict(load_file(file), strict=False)
        else:
            raise CheckpointError(
                f"{resume_from_checkpoint} has no adapters to go on with: it was not trained with LoRA. Leave --lora_rank "
                "out, or begin anew in another --output_dir."
            )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        check_best_metric(self.args, metrics)
        return bool(super()._determine_best_metric(metrics=metrics, trial=trial))

    def _load_best_model(self) -> None:
        # Where the best model cannot be loaded, sentence-transformers logs it and goes on with the last one.
        best = self.state.best_model_checkpoint
        if best is None:
            raise CheckpointError(f"There is no best checkpoint in {self.args.output_dir} to load at the end.")
        try:
            self._load_from_checkpoint(best)
        except Exception as error:
            raise CheckpointError(
                f"The best checkpoint {best} cannot be loaded: {error}. The model is that of the last step; train anew, or "
                "use another checkpoint."
            ) from error
        self.model.model_card_data.set_best_model_step(int(best.rsplit("-", 1)[-1]))

    def _check_losses(self) -> None:
        if task := self.task_log.find_non_finite():
            raise self._explain_non_finite(f"The loss of task {task!r}")

    def _check_weights(self) -> None:
        # A finite loss can have a gradient that is none: then the weights are spoilt before any loss tells.
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all().item():
                raise self._explain_non_finite(f"The weight {name}")

    def _explain_non_finite(self, what: str) -> NonFiniteLossError:
        last = find_last_checkpoint(str(self.args.output_dir))
        return NonFiniteLossError(
            f"{what} is not a finite number, seen at step {self.state.global_step}. "
            + (f"The last checkpoint before it is {last.name}. " if last else "No checkpoint was written yet. ")
            + "Lower the learning rate, or train in float32 (--precision float32)."
        )

    def _explain_failed_write(self, folder: Path, error: Exception) -> CheckpointError:
        last = find_last_checkpoint(str(self.args.output_dir))
        return CheckpointError(
            f"{folder} could not be written: {error}. "
            + (f"The last whole checkpoint is {last.name}. " if last else "There is no earlier checkpoint. ")
            + "Mend what is wrong (most often the disk is full) and go on with --resume."
        )

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout probability of a model, those that attention layers keep as a plain number too.

    Args:
        model: The model, changed in place.
        probability: From 0 to 1.

    Raises:
        ValueError: If the probability is out of range.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"A dropout probability is from 0 to 1, not {probability}.")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, probability)


def _find_accuracy(loss: Any) -> Tensor | None:
    """The accuracy that a loss noted in its last forward, also where another loss is wrapped around it."""
    while loss is not None:
        accuracy = getattr(loss, "last_accuracy", None)
        if isinstance(accuracy, Tensor):
            return accuracy
        loss = getattr(loss, "loss", None) if isinstance(loss, nn.Module) else None
    return None


def _leave_tasks_out(logs: dict[str, Any] | None) -> dict[str, Any] | None:
    of_tasks = ("loss/", "accuracy/")
    return None if logs is None else {name: value for name, value in logs.items() if not name.startswith(of_tasks)}


class _QuietProgressCallback(ProgressCallback):
    """Shows the overall figures: a line with two numbers for each of a hundred tasks tells nobody anything."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        super().on_log(args, state, control, logs=_leave_tasks_out(logs), **kwargs)


class _QuietPrinterCallback(PrinterCallback):
    """As `_QuietProgressCallback`, without a progress bar."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        super().on_log(args, state, control, logs=_leave_tasks_out(logs), **kwargs)
