"""A training that resumes after an interruption at any moment, with the same result."""

import os
import signal
import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from nnunet_cmc.data.format.checkpoint_names import BEST, FINAL, LATEST
from nnunet_cmc.data.format.splits import moved_case
from nnunet_cmc.data.loading.seeding import seed_from_environment, seeded
from nnunet_cmc.losses.ranks import any_rank
from nnunet_cmc.trainers.optimizers import order_moments_as_weights
from nnunet_cmc.trainers.pair_trainer import PairTrainer
from nnunet_cmc.utils.checkpoints import load_checkpoint
from nnunet_cmc.utils.files import save_tensors
from nnunet_cmc.utils.parallel import finish_loaders, terminate_with_parent

EARLIER = "earlier_training"  # folder of an earlier training's checkpoints
IN_STEP = 1  # fifth number of the seed of a step; seeds of batches have fewer numbers, so that the two never coincide
ENDING = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}  # at these signals a training saves and exits


class ResumableTrainer(PairTrainer):
    """Checkpoints appear whole or not at all; after SIGTERM (a cluster's pre-emption) or Ctrl-C it saves and exits.

    It goes on with nnU-Net's ``--c``: at the iteration after the signal, else after the last epoch that was saved. With
    a seed, on the CPU and with in-process loading the weights are the same to the bit as without the interruption. A
    second Ctrl-C ends the training at once, without saving.
    """

    seed: int | None
    iteration = 0  # of the epoch
    epoch_outputs: list[dict] | None = None  # what the epoch's iterations returned so far; None between epochs
    cases: dict[str, list[str]] | None = None  # of the split that is trained on, by the list that they are in
    _signal: signal.Signals | None = None  # which asked this process to end
    _has_started = False  # and so has a state to save
    _updating = False  # in the middle of an update, when the state cannot be saved

    def run_training(self) -> None:
        """Train as nnU-Net does, but save and exit at SIGTERM and at Ctrl-C."""
        self._process = os.getpid()
        # only the main thread may handle signals
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread:
            self._handlers = {number: signal.getsignal(number) for number in ENDING}
            for number, handler in self._handlers.items():
                if handler != signal.SIG_IGN:  # as shells let background processes ignore Ctrl-C
                    signal.signal(number, self._on_signal)
        else:
            self.print_to_log_file("Not in the main thread: no checkpoint is saved on SIGTERM and Ctrl-C.")
        terminate_with_parent()  # of -num_gpus
        try:
            super().run_training()
        except RuntimeError:
            if self._updating or self._signal is None:
                raise
            if not self._has_started:
                self._exit("stopped before the first step, which leaves the checkpoints as they are.")
            self._save_and_exit()  # the loader's workers got the signal as well, so a batch was missing
        finally:
            if in_main_thread:
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
        if self._is_ending():  # after its last step: the validation is long as well
            self._exit("training finished, validation did not. Run again with --c to validate.")

    def _on_signal(self, number: int, frame) -> None:
        if os.getpid() != self._process:  # a worker that inherited this handler
            if number == signal.SIGINT:  # a terminal sends it to all: this process ends its workers when it has saved
                return
            os._exit(128 + number)
        self._signal = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self._handlers[self._signal])
            # print cannot be used in a handler that interrupts a print
            os.write(2, b"\nSaving a checkpoint after this step; Ctrl-C again ends without saving.\n")

    def _is_ending(self) -> bool:
        return any_rank(self._signal is not None, self.device)

    def _exit(self, message: str) -> NoReturn:
        number = self._signal or signal.SIGTERM  # another rank got it
        self.print_to_log_file(f"{ENDING[number]}: {message}")
        raise SystemExit(128 + number)  # as a shell reports it

    def on_train_start(self) -> None:
        """Start as nnU-Net does; a new training sets an earlier one's checkpoints aside."""
        is_new = self.current_epoch == 0 and self.epoch_outputs is None
        super().on_train_start()
        self._has_started = True
        if is_new and self.local_rank == 0 and not self.disable_checkpointing:
            self._set_aside_checkpoints()

    def _set_aside_checkpoints(self) -> None:
        """Move an earlier training's checkpoints, which ``--c`` and predictions would take for this one's."""
        folder = Path(self.output_folder)
        earlier = [folder / name for name in (FINAL, LATEST, BEST) if (folder / name).exists()]
        for file in earlier:
            (folder / EARLIER).mkdir(exist_ok=True)
            file.replace(folder / EARLIER / file.name)
        if earlier:
            names = ", ".join(file.name for file in earlier)
            self.print_to_log_file(f"Checkpoints of an earlier training were moved to {folder / EARLIER}: {names}.")

    def on_train_epoch_start(self) -> None:
        """Start as nnU-Net does, at the epoch's first iteration."""
        super().on_train_epoch_start()
        self.iteration = 0
        self.enter_epoch()

    def enter_epoch(self) -> None:
        """Make checkpoints from here on resume in this epoch, even before its first iteration."""
        if self.epoch_outputs is None:
            self.epoch_outputs = []

    def train_step(self, batch: dict) -> dict:
        """Run an :meth:`update`, or return what it returned before the training was interrupted in this epoch."""
        outputs = self.epoch_outputs
        assert outputs is not None
        if self.iteration == len(outputs):
            self._updating = True
            with self._seeded_step():
                outputs.append(self.update(batch))
            self._updating = False
        self.iteration += 1
        self.exit_if_terminated()
        return outputs[self.iteration - 1]

    def _seeded_step(self) -> AbstractContextManager:
        """Seed what the network draws, such as dropout, by the iteration, whether or not the training was resumed."""
        if self.seed is None:
            return nullcontext()
        return seeded(self.seed, self.local_rank, self.current_epoch, self.iteration, IN_STEP)

    @abstractmethod
    def update(self, batch: dict) -> dict:
        """Make one step of the optimizer, and return numbers by name."""

    def validation_step(self, batch: dict) -> dict:
        """Validate as nnU-Net does; save and exit if a signal came."""
        result = super().validation_step(batch)
        self.exit_if_terminated()
        return result

    def on_epoch_end(self) -> None:
        """End as nnU-Net does; checkpoints from here on resume with the next epoch."""
        self.epoch_outputs = None
        super().on_epoch_end()

    def exit_if_terminated(self) -> None:
        """Save and exit if a signal came, to any rank."""
        if self._is_ending():
            self._save_and_exit()

    def _save_and_exit(self) -> NoReturn:
        self.save_checkpoint(os.path.join(self.output_folder, LATEST))
        self.close_loaders()
        self._exit(f"saved {LATEST}. Train with --c to go on.")

    def close_loaders(self) -> None:
        """End the loaders' processes."""
        finish_loaders(self.dataloader_train, self.dataloader_val)

    # ---- the split

    def get_dataloaders(self):
        """Load as :class:`PairTrainer` does.

        Raises:
            ValueError: the checkpoint that the training goes on from is of another split.
        """
        fold = self.fold_cases.read()
        cases = {**vars(fold), "imagesUn": self.fold_cases.extra(fold)}
        self._require_same(cases)
        self.cases = cases
        return super().get_dataloaders()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, but average over the validation cases only, not over all files found.

        Raises:
            ValueError: the checkpoint, or the training until now, is of another split.
        """
        self._require_same(vars(self.fold_cases.read()))
        if self.local_rank == 0:
            _, val = self.do_split()
            self._remove_stale_predictions(set(val))
        super().perform_actual_validation(save_probabilities)

    def _require_same(self, cases: dict[str, list[str]]) -> None:
        """Raise ValueError if one of these lists differs from that at the start of the training."""
        if self.cases is None:
            return
        moved = moved_case({key: self.cases.get(key, []) for key in cases}, cases)
        if moved is not None:
            case, before, now = moved
            raise ValueError(
                f"Fold {self.fold} is another split than {self.output_folder} was trained on: case {case} was in "
                f"{before}, and is in {now}: restore the files as they were, or train anew, without --c and --val."
            )

    def _remove_stale_predictions(self, val: set[str]) -> None:
        """Remove an earlier training's predictions of other cases than ``val``, and its summary."""
        folder = Path(self.output_folder, "validation")
        (folder / "summary.json").unlink(missing_ok=True)
        endings = (self.description.file_ending, ".npz", ".pkl")
        stale = [f for ending in endings for f in folder.glob(f"*{ending}") if f.name.removesuffix(ending) not in val]
        if stale:
            self.print_to_log_file(f"Removing {len(stale)} files of an earlier split from {folder}.")
        for file in stale:
            file.unlink(missing_ok=True)

    # ---- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Save nnU-Net's checkpoint with :meth:`own_state`."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return super().save_checkpoint(filename)
        checkpoint = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + (self.epoch_outputs is None),
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            **self.own_state(),
        }
        save_tensors(filename, checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: str | dict) -> None:
        """Restore what :meth:`save_checkpoint` saved, as nnU-Net does; nothing in the file is executed.

        A newer ``checkpoint_best.pth`` replaces ``checkpoint_latest.pth``, which nnU-Net writes every 50 epochs.

        Raises:
            ValueError: the file is no checkpoint, or of another trainer, or of other plans or labels.
        """
        if isinstance(filename_or_checkpoint, dict):
            file, content = "The checkpoint", filename_or_checkpoint
        else:
            file, content = self._newest(filename_or_checkpoint)
        if "epoch_outputs" not in content:
            raise ValueError(
                f"{file} is of {content.get('trainer_name')}, which {type(self).__name__} cannot continue: train "
                "without --c, or continue with the trainer that saved it."
            )
        if not self.was_initialized:
            self.initialize()
        self.my_init_kwargs = content["init_args"]
        self.current_epoch = content["current_epoch"]
        self.logger.load_checkpoint(content["logging"])
        self._best_ema = content["_best_ema"]
        self.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
        self.bare_network.load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        order_moments_as_weights(self.optimizer)
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.load_own_state(content)

    def _newest(self, file: str) -> tuple[str, dict]:
        """Return a checkpoint and its content: of the best one if ``file`` is the latest one and older."""
        content = _load(file)
        best = os.path.join(os.path.dirname(file), BEST)
        if os.path.basename(file) == LATEST and os.path.isfile(best):
            other = _load(best)
            if other.get("current_epoch", 0) > content.get("current_epoch", 0):
                self.print_to_log_file(f"{BEST} is of a later epoch than {LATEST}: going on from there.")
                return best, other
        return file, content

    def own_state(self) -> dict:
        """Return what a checkpoint has beside nnU-Net's entries."""
        return {
            "epoch_outputs": self.epoch_outputs, "cases": self.cases, "length": self._length(), "seed": self.seed
        }  # fmt: skip

    def _length(self) -> dict[str, int]:
        return {"epochs": self.num_epochs, "iterations of an epoch": self.num_iterations_per_epoch}

    def load_own_state(self, checkpoint: dict) -> None:
        """Restore what :meth:`own_state` returned. ValueError: the checkpoint is of another length or seed."""
        now = self._length()
        for what, number in checkpoint.get("length", now).items():
            if number != now[what]:
                raise ValueError(
                    f"The checkpoint in {self.output_folder} is of a training of {number} {what}, and this one has "
                    f"{now[what]}: give it the same length, or train anew, without --c."
                )
        seed = checkpoint.get("seed", self.seed)
        if seed != self.seed and seed_from_environment() is not None:
            earlier = "no seed" if seed is None else f"seed {seed}"
            raise ValueError(
                f"The checkpoint in {self.output_folder} is of a training with {earlier}, and this one has "
                f"{self.seed}: unset NNUNET_CMC_SEED, or train anew, without --c."
            )
        self.seed = seed
        self.epoch_outputs = checkpoint["epoch_outputs"]
        self.cases = checkpoint.get("cases")
        if self.cases is None:
            self.print_to_log_file(
                "The checkpoint does not say which cases it was trained on: the split is not checked."
            )


def _load(checkpoint: str) -> dict:
    return load_checkpoint(checkpoint, "remove it and go on from another with --c, or train without --c")
