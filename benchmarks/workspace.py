"""Generated abdomens in nnU-Net's folders, planned and preprocessed in this process: what the benchmarks run on."""

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from planned import Planner

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.dataset_conversion.folders import convert_folders
from nnunet_cmc.dataset_conversion.phantom import generate
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.registry import trainer_class
from nnunet_cmc.utils.files import write_json

DATASET = 990
CONFIGURATION = "3d_fullres"


class Workspace:
    """A dataset of phantoms below ``root``, to which nnU-Net's variables point from now on.

    The first two cases are labelled, the last two are for validation, and those between hide their label.

    Args:
        root: an empty folder.
        layout: ``registered`` or ``unpaired``, see :func:`nnunet_cmc.dataset_conversion.phantom.generate`.
        subjects: at least 6.
        seed: of the phantoms, and of what trainers draw.
    """

    def __init__(self, root: str | Path, layout: str = "registered", subjects: int = 6, seed: int = 0):
        root = Path(root)
        for part in ("raw", "preprocessed", "results"):
            (root / part).mkdir()
            os.environ[f"nnUNet_{part}"] = str(root / part)
        os.environ["NNUNET_CMC_SEED"] = str(seed)
        made = generate(root / "phantoms", labeled=subjects, layout=layout, seed=seed)
        self.raw = convert_folders(DATASET, "Phantoms", made["images"], made["labels"], made["classes"])
        self.dataset_json = json.loads((self.raw / "dataset.json").read_text())
        self.description = DatasetDescription.from_dict(self.dataset_json)
        self.labels = sorted((self.raw / "labelsTr").glob("*.nii.gz"))
        self.cases = [file.name.removesuffix(".nii.gz") for file in self.labels]
        fold = {"train": self.cases[:2], "unlabeled": self.cases[2:-2], "val": self.cases[-2:]}
        self.preprocessed = root / "preprocessed" / self.raw.name
        self.preprocessed.mkdir()
        images = [sitk.ReadImage(file) for file in self.labels]
        fingerprint = {
            "spacings": [image.GetSpacing()[::-1] for image in images],
            "shapes_after_crop": [image.GetSize()[::-1] for image in images],
            "median_relative_size_after_cropping": 1.0,
            "foreground_intensity_properties_per_channel": {},  # ours are taken of the training cases alone
        }
        write_json(self.preprocessed / "dataset_fingerprint.json", fingerprint)
        for folder in (self.raw, self.preprocessed):
            write_json(folder / "splits_final.json", [fold])

    def images(self, case: str) -> list[str]:
        """Return the channel files of a case."""
        return sorted(str(file) for file in (self.raw / "imagesTr").glob(f"{case}_????.nii.gz"))

    def plan(
        self,
        planner: Planner,
        spacing: tuple[float, ...] | None = None,
        side: int | None = None,
        batch_size: int | None = None,
    ) -> dict:
        """Plan, with the planner's own spacing (mm), patch and batch or the given ones; the patch is a cube."""
        if issubclass(planner, CMCPlannerNNUNet):
            patch = None if side is None else [side] * 3
            made = planner(DATASET, overwrite_target_spacing=spacing, patch_size=patch, batch_size=batch_size)
            with mock.patch.dict(os.environ, nnUNet_n_proc_DA="1"):  # nnU-Net takes it for its number of threads
                return made.plan_experiment()
        sizes = {"patch_size": side, "batch_size": batch_size}
        changed = type(planner.__name__, (planner,), {name: size for name, size in sizes.items() if size})
        return changed(DATASET, overwrite_target_spacing=spacing).plan_experiment()

    def preprocess(self, plans: dict, preprocessor: type[DefaultPreprocessor] = CMCPreprocessor) -> Path:
        """Preprocess all cases anew, and return their folder."""
        manager = PlansManager(plans)
        configuration = manager.get_configuration(CONFIGURATION)
        folder = self.preprocessed / configuration.data_identifier
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for case, label in zip(self.cases, self.labels, strict=True):
            preprocessor(verbose=False).run_case_save(
                str(folder / case), self.images(case), str(label), manager, configuration, self.dataset_json
            )
        return folder

    def trainer(self, plans: dict, device: torch.device, name: str = "CMCTrainer") -> CMCTrainer:
        """Return an initialised trainer of these plans."""
        plans = {**plans, "continue_training": False}
        trainer = trainer_class(name)(plans, CONFIGURATION, 0, self.dataset_json, device)
        trainer.initialize()
        return trainer
