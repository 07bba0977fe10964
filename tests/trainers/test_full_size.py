"""One iteration of the full-size network on real scans: minutes and GiB, so outside of the default run (-m slow)."""

import json
import math
import resource
import time

import pytest
import torch

from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.dataset_conversion.folders import convert_folders
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.fingerprint import CMCFingerprintExtractor
from nnunet_cmc.trainers.registry import trainer_class


@pytest.mark.slow
def test_one_iteration_of_cmcplanner_on_ms_lesions(shared_data, nnunet_folders, monkeypatch):
    """One labelled and one unlabelled pair; run with -s to see time and memory."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    source = shared_data / "ms_flair_t1post"
    images = {name: f"{source}/*_{name}.nii.gz" for name in ("FLAIR", "T1POST")}
    raw = convert_folders(7, "MS", images, f"{source}/*_label.nii.gz", {"lesion": 1})
    preprocessed = nnunet_folders / "preprocessed" / raw.name
    preprocessed.mkdir()
    split = [{"train": ["patient07"], "unlabeled": ["patient19"], "val": ["patient26"]}]
    for folder in (raw, preprocessed):
        (folder / "splits_final.json").write_text(json.dumps(split))
    CMCFingerprintExtractor(7, 1).run()
    plans = CMCPlanner(7).plan_experiment()
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [96, 96, 96]
    CMCPreprocessor(verbose=False).run(7, "3d_fullres", "CMCPlans", 1)

    plans["configurations"]["3d_fullres"]["batch_size"] = 1
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())
    plans["continue_training"] = False
    trainer = trainer_class("CMCTrainerPaper")(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    batch = next(loader)
    assert batch["data"].shape == (2, 2, 96, 96, 96)
    before = {name: parameter.detach().clone() for name, parameter in trainer.network.named_parameters()}
    started = time.perf_counter()
    terms = trainer.update(batch)
    seconds = time.perf_counter() - started
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    count = sum(parameter.numel() for parameter in before.values())
    threads = torch.get_num_threads()
    print(f"\n{count / 1e6:.0f} M parameters, {threads} threads: {seconds:.1f} s, peak {gigabytes:.1f} GiB")
    print({name: round(value, 4) for name, value in terms.items()})
    assert all(math.isfinite(terms[name]) for name in ("loss", *trainer.terms)), "one pair has no strangers to compare"
    still = {name for name, parameter in trainer.network.named_parameters() if parameter.equal(before[name])}
    # behind an adapter's zero layer there is no gradient yet
    late = {name for name in before if name.endswith("adapter.down.bias")}
    assert still <= late, "AdamW moves whatever has a gradient"
