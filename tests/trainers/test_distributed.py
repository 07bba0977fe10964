"""Two processes with half of a batch each, against one with all of it (gloo, on the CPU)."""

import os
import signal
from pathlib import Path

import pytest
import torch
from processes import clean_process, runs, wait_for

STEPS = 3

# SGD instead of AdamW, which makes full steps of the rounding errors at biases that a norm cancels.
QUIET = """
import torch
from dataclasses import replace
from short_trainers import TAUGHT, short
from nnunet_cmc.networks.changes import SuperviseDeep, WithPeer
from nnunet_cmc.trainers.optimizers import WarmUpPolyLR
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.losses.schedules import constant
from nnunet_cmc.trainers.terms import CPS, PeerSupervised, Pseudo, Term
# the teacher labels every voxel, from the first step on
taught = (replace(t, weight=constant("gamma", 0.5)) if t.loss is Pseudo else t for t in TAUGHT.terms)
terms = (*taught, Term(PeerSupervised), Term(CPS))
class Quiet(short(replace(TAUGHT, terms=terms, network=(SuperviseDeep(), WithPeer()), teacher=Teacher(0.4)))):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.network.parameters(), self.initial_lr)
        return optimizer, WarmUpPolyLR(optimizer, self.initial_lr, self.num_epochs, self.num_iterations_per_epoch)
"""
# Labels the unlabelled scans before the second and before the third epoch.
ROUNDS = """
from short_trainers import short
Quiet = short("PseudoLabelTrainer", epochs=3)
"""
# Once the second rank, and once both, see nothing: nothing to encode, and no swap of styles.
AIR = """
import torch
import torch.distributed as dist
from short_trainers import short
class Quiet(short(NAME)):
    def update(self, batch):
        if self.iteration == 1 and dist.get_rank() >= 1 - self.current_epoch:
            batch = {**batch, "data": torch.zeros_like(batch["data"])}
            if "swaps" in batch:
                batch["swaps"] = batch["swaps"][:0]
        return super().update(batch)
"""
# What every rank runs: `work` is a folder with this rank's batches, in which it leaves its result.
RANK = """
import torch
import torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{work}/store", rank=rank, world_size=2)
exec(quiet)
plans = {**plans, "continue_training": False}
trainer = Quiet(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
if whole_run:
    trainer.run_training()
    terms = []
else:
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    terms = [trainer.train_step(batch) for batch in torch.load(f"{work}/batches{rank}.pt")]
torch.save({
    "terms": terms, "gradients": trainer.gradients, "network": trainer.bare_network.state_dict(),
    "teacher": trainer.teacher and trainer.teacher.state_dict(), "banks": trainer.terms.state_dict(),
    "batch_size": trainer.batch_size, "log": trainer.logger.get_checkpoint()["train_losses"],
}, f"{work}/result{rank}.pt")
dist.destroy_process_group()
"""


# What nnUNetv2_train -num_gpus 2 does, but on the CPU: its own function for a rank, and a training that takes long.
PARENT = """
import torch
from processes import execute_rank
torch.multiprocessing.spawn(execute_rank, args=(each, values), nprocs=2, join=True)
"""
SPAWNED = """
import os
import torch
import torch.distributed as dist
from nnunetv2.run import run_training
torch.set_num_threads(1)
exec(quiet)
class Long(Quiet):
    recipe = replace(Quiet.recipe, length=replace(Quiet.recipe.length, epochs=1000))
    def initialize(self):
        super().initialize()
        self.save_every = 1
plans = {**plans, "continue_training": False}
store = f"file://{work}/store"
run_training.setup_ddp = lambda rank, size: dist.init_process_group("gloo", store, rank=rank, world_size=size)
run_training.get_trainer_from_args = lambda *_: Long(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
torch.cuda.set_device = lambda device: None
open(f"{work}/rank{rank}.pid", "w").write(str(os.getpid()))
run_training.run_ddp(rank, "901", "3d_fullres", 0, "Long", "CMCTinyPlans", False, False, False, None, False, False, 2)
"""


def two_ranks(cubes, work: Path, whole_run: bool = False, quiet: str = QUIET) -> list[dict]:
    values = {"plans": cubes.plans, "dataset_json": cubes.dataset_json, "whole_run": whole_run}
    ranks = [clean_process(RANK, work=str(work), rank=rank, quiet=quiet, **values) for rank in range(2)]
    for rank in ranks:
        rank.join(300)
        rank.kill()
        assert rank.exitcode == 0
    return [torch.load(work / f"result{rank}.pt", weights_only=False) for rank in range(2)]


def test_sigterm_to_the_parent_alone_saves_on_all_ranks(unpaired, tmp_path):
    """As a cluster's scheduler may send it; torch's own way to end with a parent is SIGINT, which saves nothing."""
    values = {"plans": unpaired.plans, "dataset_json": unpaired.dataset_json, "work": str(tmp_path), "quiet": QUIET}
    parent = clean_process(PARENT, each=SPAWNED, values=values)
    wait_for(lambda: list(unpaired.results.rglob("checkpoint_latest.pth")), 100)
    ranks = [int((tmp_path / f"rank{rank}.pid").read_text()) for rank in range(2)]
    (log,) = unpaired.results.rglob("training_log_*.txt")
    parent.terminate()
    parent.join()
    try:
        wait_for(lambda: not any(map(runs, ranks)), 30)
    finally:
        for pid in filter(runs, ranks):
            os.kill(pid, signal.SIGKILL)
    assert "SIGTERM: saved checkpoint_latest.pth. Train with --c to go on." in log.read_text()


def halves(batch: dict) -> list[dict]:
    """A batch of labelled and as many unlabelled pairs as two of half of both."""
    n_labeled = len(batch["target"])
    parts = []
    for half in batch["pairs"].reshape(2, 2, -1, *batch["pairs"].shape[1:]).unbind(1):
        pairs = half.flatten(0, 1)
        rows = pairs[pairs >= 0].unique()
        number = torch.full((len(batch["data"]) + 1,), -1)  # the last one is what -1 picks
        number[rows] = torch.arange(len(rows))
        unlabeled = rows[rows >= n_labeled] - n_labeled
        parts.append(
            {
                "target": batch["target"][rows[rows < n_labeled]],
                "pairs": number[pairs],
                "strong": batch["strong"][unlabeled],
                **{key: batch[key][rows] for key in ("data", "fusion", "positions")},
            }
        )
    return parts


@pytest.mark.parametrize("air", [False, True])
def test_two_ranks_with_half_a_batch_each_are_one_with_all_of_it(cubes, tmp_path, air):
    """Terms of the loss, gradients, weights, teacher and banks: of 4 pairs (and 4 unlabelled) against 2 + 2.

    With ``air``, the second rank's patches hold nothing at all, so that it has nothing to encode and to decode.
    """
    cubes.plans["configurations"]["3d_fullres"]["batch_size"] = 4
    names: dict = {}
    exec(QUIET, names)
    one = cubes.trainer(names["Quiet"])
    one.on_train_start()
    one.on_epoch_start()
    one.on_train_epoch_start()
    batches = [next(one.dataloader_train) for _ in range(STEPS)]
    if air:
        for batch in batches:
            rows = batch["pairs"].reshape(2, 2, -1)[:, 1].flatten()
            rows = rows[rows >= 0]
            batch["data"][rows] = 0
            batch["strong"][rows[rows >= len(batch["target"])] - len(batch["target"])] = 0
    for rank, shares in enumerate(zip(*map(halves, batches), strict=True)):
        torch.save(list(shares), tmp_path / f"batches{rank}.pt")
    terms = [one.train_step(batch) for batch in batches]
    found = two_ranks(cubes, tmp_path)
    assert [each["batch_size"] for each in found] == [2, 2]
    for each in found:
        for ours, theirs in zip(each["terms"], terms, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5, nan_ok=True)
        assert each["gradients"] == pytest.approx(one.gradients, rel=1e-3, abs=1e-6)
        for part, expected in (("network", one.network), ("teacher", one.teacher), ("banks", one.terms)):
            torch.testing.assert_close(each[part], expected.state_dict(), rtol=1e-3, atol=1e-5)
    assert air or terms[0]["csc"] > 0
    assert terms[0]["pseudo"] != 0


def test_a_whole_training_on_two_ranks_leaves_both_with_the_same(unpaired, tmp_path):
    """Epochs, validation, calibration and checkpoints included; each rank draws batches of its own."""
    first, second = two_ranks(unpaired, tmp_path, whole_run=True)
    for part in ("network", "teacher", "banks"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    assert first["log"] == second["log"]
    assert first["banks"]["csc.forms.unpaired.prototypes.filled"].any()
    (checkpoint,) = unpaired.results.rglob("checkpoint_final.pth")
    saved = torch.load(checkpoint, weights_only=False)
    torch.testing.assert_close(saved["network_weights"], first["network"], rtol=0, atol=0)
    assert saved["current_epoch"] == 2


def test_two_ranks_label_the_unlabelled_scans_between_them(registered, tmp_path):
    first, second = two_ranks(registered, tmp_path, whole_run=True, quiet=ROUNDS)
    torch.testing.assert_close(first["network"], second["network"], rtol=0, atol=0)
    for number in (1, 2):
        (folder,) = registered.results.rglob(f"pseudo_labels/round_{number}")
        assert {file.name.removesuffix("_seg.b2nd") for file in folder.iterdir()} == {*registered.hidden()}
    assert not list(registered.results.rglob("*.unfinished"))


@pytest.mark.parametrize("name", ["UMMLTrainer", "MMFormerTrainer"])
def test_ranks_that_see_nothing_neither_hang_nor_part(registered, tmp_path, name):
    first, second = two_ranks(registered, tmp_path, whole_run=True, quiet=AIR.replace("NAME", repr(name)))
    torch.testing.assert_close(first["network"], second["network"], rtol=0, atol=0)
    assert all(value.isfinite().all() for value in first["network"].values())
