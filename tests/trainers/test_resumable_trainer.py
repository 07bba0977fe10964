"""Training that is stopped, by SIGTERM or at once, and started again."""

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import children, clean_process, kill_with_workers, wait_for
from short_trainers import TAUGHT, short

from nnunet_cmc.trainers import cmc_trainer

EPOCHS, ITERATIONS = 3, (3, 2)
UNINTERRUPTED: dict = {}


@pytest.fixture(autouse=True)
def ctrl_c():
    """As at a terminal; of a process in the background, as these tests may be, shells ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


class Quiet(short(TAUGHT, EPOCHS, *ITERATIONS)):
    """Short, seeded, saving every epoch, and without pictures."""

    def initialize(self):
        super().initialize()
        self.save_every = 1


def state(trainer) -> dict:
    """All that training has changed, but for times."""
    log = {k: v for k, v in trainer.logger.local_logger.my_fantastic_logging.items() if "timestamps" not in k}
    assert all(len(series) == EPOCHS for series in log.values())
    return {
        "network": trainer.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "banks": trainer.terms.state_dict(),
        "teacher": trainer.teacher.state_dict(),
        "log": {name: np.array(series, dtype=float) for name, series in log.items()},
    }


def assert_same(found: dict, expected: dict) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def latest(trainer) -> str:
    return str(Path(trainer.output_folder) / "checkpoint_latest.pth")


@pytest.fixture
def uninterrupted(unpaired) -> dict:
    """Trained once, since every test's dataset has the same cases."""
    if not UNINTERRUPTED:
        trainer = unpaired.trainer(Quiet)
        trainer.run_training()
        UNINTERRUPTED.update(state(trainer))
        shutil.rmtree(unpaired.results)
    return UNINTERRUPTED


@pytest.mark.parametrize(
    ("step", "epoch", "iteration", "number", "name"),
    [
        ("update", 0, 1, signal.SIGTERM, "SIGTERM"),
        ("update", 1, 0, signal.SIGINT, "Ctrl-C"),
        ("update", 2, 2, signal.SIGTERM, "SIGTERM"),
        ("confusion", 1, 0, signal.SIGTERM, "SIGTERM"),
    ],
)
def test_a_signal_saves_and_exits_and_the_rest_is_as_if_nothing_had_happened(
    unpaired, uninterrupted, step, epoch, iteration, number, name
):
    """During the given iteration, of training or of validation."""
    first = unpaired.trainer(Quiet)
    function, calls = first.update if step == "update" else cmc_trainer.confusion_alone, []

    def and_signal(*args):
        if len(calls) == epoch * ITERATIONS[step == "confusion"] + iteration:
            os.kill(os.getpid(), number)
        calls.append(1)
        return function(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*((first, "update") if step == "update" else (cmc_trainer, "confusion_alone")), and_signal)
        with pytest.raises(SystemExit) as exit_:
            first.run_training()
    assert exit_.value.code == {"SIGTERM": 143, "Ctrl-C": 130}[name]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert f"{name}: saved checkpoint_latest.pth" in Path(first.log_file).read_text()

    resumed = unpaired.trainer(Quiet)
    resumed.load_checkpoint(latest(first))
    assert resumed.current_epoch == epoch
    updated = resumed.update
    updates = []
    resumed.update = lambda batch: updates.append(1) or updated(batch)
    resumed.run_training()
    done = epoch * ITERATIONS[0] + (iteration + 1 if step == "update" else ITERATIONS[0])
    assert len(updates) == EPOCHS * ITERATIONS[0] - done, "no finished iteration is trained again"
    assert_same(state(resumed), uninterrupted)


def test_sigterm_to_the_workers_as_well(unpaired, monkeypatch):
    """A cluster signals the whole job, and the loader's workers may be missed before the trainer looks."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    first = unpaired.trainer(Quiet)
    finish = first.on_train_start

    def and_sigterm():
        finish()
        for process in [*first.dataloader_train._processes, *first.dataloader_val._processes]:
            process.terminate()
            process.join()
        os.kill(os.getpid(), signal.SIGTERM)

    first.on_train_start = and_sigterm
    with pytest.raises(SystemExit):
        first.run_training()
    resumed = unpaired.trainer(Quiet)
    resumed.load_checkpoint(latest(first))
    resumed.run_training()
    assert resumed.current_epoch == EPOCHS


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_with_workers_ends_without_a_traceback(unpaired, monkeypatch, number, name):
    """A terminal sends SIGINT to the workers, too."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    output = unpaired.preprocessed.parent / "output.txt"
    training = training_of(unpaired, epochs=1000, output=output)
    wait_for(lambda: list(unpaired.results.rglob("checkpoint_latest.pth")), 100)
    workers = children(training.pid) if number == signal.SIGINT else []
    for process in (training.pid, *workers):
        os.kill(process, number)
    training.join()
    assert training.exitcode == 128 + number
    text = output.read_text()
    assert f"{name}: saved checkpoint_latest.pth" in text
    assert "Traceback" not in text


def test_ctrl_c_that_is_ignored_stays_so(unpaired):
    """Of a process in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = unpaired.trainer(Quiet)
    update = trainer.update
    trainer.update = lambda batch: os.kill(os.getpid(), signal.SIGINT) or update(batch)
    trainer.run_training()
    assert trainer.current_epoch == EPOCHS
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_second_ctrl_c_ends_at_once(unpaired, capfd):
    trainer = unpaired.trainer(Quiet)

    def interrupted(batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    trainer.update = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    assert "Saving a checkpoint after this step; Ctrl-C again ends without saving." in capfd.readouterr().err
    assert not list(unpaired.results.rglob("checkpoint_latest.pth"))


def test_sigterm_while_the_loaders_start_leaves_the_checkpoint_as_it_is(unpaired, uninterrupted):
    """In a new training there is nothing to save yet, and a resumed one has saved all."""
    first = unpaired.trainer(Quiet)
    start = first.on_epoch_start

    def stop():
        if first.current_epoch == 1:
            raise KeyboardInterrupt
        start()

    first.on_epoch_start = stop
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    saved = Path(latest(first)).read_bytes()
    for folder in (Path(first.output_folder), unpaired.results):
        resumed = unpaired.trainer(Quiet)
        if folder != unpaired.results:
            resumed.load_checkpoint(latest(first))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resumed, "get_dataloaders", terminated_while_loading)
            with pytest.raises(SystemExit) as exit_:
                resumed.run_training()
        assert exit_.value.code == 143
        assert "SIGTERM: stopped before the first step" in Path(resumed.log_file).read_text()
        assert Path(latest(first)).read_bytes() == saved
    resumed = unpaired.trainer(Quiet)
    resumed.load_checkpoint(latest(first))
    resumed.run_training()
    assert_same(state(resumed), uninterrupted)


def terminated_while_loading():
    os.kill(os.getpid(), signal.SIGTERM)
    raise RuntimeError("One or more background workers are no longer alive")


def test_sigterm_after_the_last_step(unpaired):
    """The training is finished and saved, but the validation, which may take hours, is not begun."""
    first = unpaired.trainer(Quiet)
    first.on_train_end = lambda: os.kill(os.getpid(), signal.SIGTERM) or type(first).on_train_end(first)
    with pytest.raises(SystemExit) as exit_:
        first.run_training()
    assert exit_.value.code == 143
    assert "SIGTERM: training finished, validation did not" in Path(first.log_file).read_text()
    assert Path(first.output_folder, "checkpoint_final.pth").is_file()


def test_outside_of_the_main_thread(registered):
    """As in a program that trains in the background: signals are the main thread's."""
    trainer = registered.trainer(Quiet)
    trainer.num_epochs = 1
    handler = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(trainer.run_training).result()
    assert trainer.current_epoch == 1
    assert signal.getsignal(signal.SIGTERM) == handler
    assert "Not in the main thread: no checkpoint is saved on SIGTERM and Ctrl-C" in Path(trainer.log_file).read_text()


def test_workers_that_die_are_an_error(unpaired, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = unpaired.trainer(Quiet)
    finish = trainer.on_train_start

    def and_kill():
        finish()
        for process in trainer.dataloader_train._processes:
            process.kill()

    trainer.on_train_start = and_kill
    with pytest.raises(RuntimeError, match="no longer alive"):
        trainer.run_training()
    assert not os.path.exists(latest(trainer))


TRAIN = """
import multiprocessing, os, signal, sys, threading, torch
sys.stdout = sys.stderr = open(output, "w", buffering=1)
from nnunet_cmc.trainers import cmc_trainer
from short_trainers import TAUGHT, short
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal
multiprocessing.set_start_method("fork", force=True)  # as where no forkserver has started this process
class Quiet(short(TAUGHT, length[0], *length[1])):
    def initialize(self):
        super().initialize()
        self.save_every = 1
        self.updates = 0
    def update(self, batch):
        if killed_after and self.updates >= killed_after[0]:
            threading.Timer(killed_after[1] if self.updates == killed_after[0] else 0, kill).start()
        self.updates += 1
        return super().update(batch)
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
plans = {**plans, "continue_training": True}
trainer = Quiet(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
for name in ("checkpoint_final", "checkpoint_latest", "checkpoint_best"):  # as nnUNetv2_train --c
    file = os.path.join(trainer.output_folder, name + ".pth")
    if os.path.isfile(file):
        trainer.load_checkpoint(file)
        break
trainer.run_training()
"""


def training_of(
    cubes, epochs=EPOCHS, output: Path = Path(os.devnull), killed_after: tuple[int, float] | None = None
) -> multiprocessing.Process:
    """A process that trains, or goes on; it kills itself after so many updates and seconds, or at the next update."""
    values = {"length": (epochs, ITERATIONS), "plans": cubes.plans, "dataset_json": cubes.dataset_json}
    return clean_process(TRAIN, output=str(output), killed_after=killed_after, **values)


def test_the_loaders_workers_end_with_a_training_that_is_killed(unpaired, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    training = training_of(unpaired, epochs=1000)
    kill_with_workers(training.pid, 3, lambda: list(unpaired.results.rglob("checkpoint_latest.pth")))
    training.join()


def test_killed_at_random_moments_and_continued(unpaired, uninterrupted):
    """kill -9 gives nobody the time to save anything: what was saved last is whole, and training goes on from there.

    Moments are counted in updates of the weights, and so no training is over before, on a machine of any speed.
    """
    rng, kills = np.random.default_rng(0), []
    for _ in range(5):
        training = training_of(unpaired, killed_after=(int(rng.integers(2, 5)), rng.uniform(0, 0.2)))
        training.join()
        assert training.exitcode in (0, -signal.SIGKILL)
        kills.append(training.exitcode != 0)
    training = training_of(unpaired)
    training.join()
    assert training.exitcode == 0
    assert kills[0]
    (checkpoint,) = unpaired.results.rglob("checkpoint_final.pth")
    found = torch.load(checkpoint, weights_only=False)
    assert_same(
        {"network": found["network_weights"], "banks": found["terms_state"], "teacher": found["average_state"]},
        {part: uninterrupted[part] for part in ("network", "banks", "teacher")},
    )
