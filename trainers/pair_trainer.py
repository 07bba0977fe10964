"""Training on pairs of labelled and of unlabelled scans: the cases, the network's device, and the loaders."""

import os
from dataclasses import replace
from typing import Any

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.plans_json import FEWEST_SLICES
from nnunet_cmc.data.loading.background import is_intensity, with_background_kept
from nnunet_cmc.data.loading.cases import LabeledDataset
from nnunet_cmc.data.loading.laterality import LEFT_RIGHT, MIN_CASES, sided_classes
from nnunet_cmc.data.loading.locating import located
from nnunet_cmc.data.loading.pairs import PairLoader
from nnunet_cmc.data.loading.seeding import SeededLoader, seed_from_environment
from nnunet_cmc.data.loading.views import RandomizeContrast, View
from nnunet_cmc.data.preprocessing.normalization import clip_range
from nnunet_cmc.trainers.checks import require_preprocessed, require_registered, require_supported
from nnunet_cmc.trainers.fold_cases import FoldCases, Samplers
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.utils.devices import require_device
from nnunet_cmc.utils.variables import require_set


class PairTrainer(nnUNetTrainer):
    """nnU-Net's trainer, but with batches of pairs from the labelled and the unlabelled cases of a fold."""

    recipe: Recipe
    samplers: Samplers  # that the loaders draw from
    pseudo_labels: str | None = None  # folder of the pseudo-labels of whole scans, once they are made
    seed: int | None = None  # with a seed and in-process loading, a run on the CPU is reproducible to the bit
    is_ddp: bool
    network: nn.Module

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net inspects this signature
    ):
        require_set(nnUNet_preprocessed, nnUNet_results)
        self.description = DatasetDescription.from_dict(dataset_json)
        require_supported(plans, configuration, self.description, type(self).__name__)
        require_device(device)
        require_preprocessed(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:  # nnU-Net assumes CUDA and one machine; torchrun tells each process its GPU
            index = int(os.environ.get("LOCAL_RANK") or self.local_rank)
            self.device = torch.device("cuda", index) if device.type == "cuda" else device
        folder = str(self.preprocessed_dataset_folder)
        self.fold_cases = FoldCases(fold, folder, self.description, self.recipe, self.print_to_log_file)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return labelled and validation cases of the fold."""
        return self.fold_cases.train_and_val()

    def initialize(self) -> None:
        """Initialize as nnU-Net does, from the seed if there is one, and distribute on the trainer's device."""
        if self.seed is None:
            self.seed = seed_from_environment()
        if self.seed is not None:
            torch.manual_seed(self.seed)
        distributed, self.is_ddp = self.is_ddp, False
        super().initialize()
        if not self.compiles:
            self.bare_network.order_for(self.device)
        self.dataset_class = LabeledDataset
        self.is_ddp = distributed
        if distributed:
            if any(isinstance(module, nn.BatchNorm3d) for module in self.network.modules()):
                raise ValueError(
                    f"The network of {self.plans_manager.plans_name} has batch norms, whose statistics several "
                    "processes would not share: train it in one, without -num_gpus."
                )
            self._set_batch_size_and_oversample()
            devices = [self.device] if self.device.type == "cuda" else None
            # a modality absent on a rank leaves its encoder unused; ranks predict different numbers of tiles
            self.network = DistributedDataParallel(
                self.network, devices, find_unused_parameters=True, broadcast_buffers=False
            )

    @property
    def compiles(self) -> bool:
        """Whether ``nnUNet_compile=1`` asks for compiled encoders and decoders."""
        return os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")  # noqa: SIM112 - nnU-Net's name

    @property
    def bare_network(self) -> Any:
        """The CMCNet without the wrapper of a distributed training."""
        return self.network.module if isinstance(self.network, DistributedDataParallel) else self.network

    def mirror_axes(self, cases: list[str]) -> tuple[int, ...]:
        """Return the recipe's axes as transposed, or none if a class lies on one side of the body only.

        Args:
            cases: the labelled and the validation cases. All folds of a cross-validation have the same, and so mirror
                alike: nnU-Net's ensemble of them takes the axes of the first.
        """
        transposed = self.plans_manager.transpose_forward.index
        names = {label: name for name, label in self.description.labels.items()}
        dataset = self.dataset_class(str(self.preprocessed_dataset_folder), cases)
        sided = [names[label] for label in sided_classes(dataset, transposed(LEFT_RIGHT))]
        if sided:
            classes = ", ".join(sided)
            self.print_to_log_file(
                f"No mirroring: in the labelled and validation cases {classes} lie on one side of the body only (left "
                f"or right), or are in fewer than {MIN_CASES} of them."
            )
            return ()
        axes = (
            "left and right" if self.recipe.mirrored_axes == (LEFT_RIGHT,) else f"the axes {self.recipe.mirrored_axes}"
        )
        self.print_to_log_file(f"Mirroring {axes}: every class occurs on both sides of the body.")
        return tuple(sorted(map(transposed, self.recipe.mirrored_axes)))

    def views(self) -> tuple[View, ...]:
        """Return the recipe's views, with the range that the plans' normalisation clips to."""
        schemes = self.configuration_manager.normalization_schemes
        intensities = self.plans_manager.foreground_intensity_properties_per_channel
        clip = tuple(clip_range(scheme, intensities[str(channel)]) for channel, scheme in enumerate(schemes))
        return tuple(
            replace(view, clip=clip) if isinstance(view, RandomizeContrast) else view for view in self.recipe.views
        )

    def get_dataloaders(self):
        """Load pairs for training, nnU-Net's patches for validation."""
        patch_size = self.configuration_manager.patch_size
        if min(patch_size) < FEWEST_SLICES:
            raise ValueError(
                f"The patch {patch_size} has a side of fewer than {FEWEST_SLICES} voxels, which nnU-Net's augmentation "
                "cannot blur: plan again, with nnUNetv2_plan_experiment -pl CMCPlannerNNUNet, which pads scans of "
                "fewer slices."
            )
        rotation, dummy_2d, initial_patch_size, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.samplers = self.fold_cases.samplers(self.pseudo_labels)
        labeled, val = self.samplers.labeled, self.samplers.val
        require_registered(self.recipe, labeled, type(self).__name__, f"fold {self.fold}")
        mirror_axes = self.mirror_axes(list(dict.fromkeys([*labeled.cases, *val])))  # the same cases in fold all
        self.inference_allowed_mirroring_axes = mirror_axes or None  # nnU-Net's predictor takes no empty tuple
        seeding = {"seed": self.seed, "rank": self.local_rank}
        transforms = self.get_training_transforms(patch_size, rotation, None, mirror_axes, dummy_2d)
        moved = ComposeTransforms([step for step in transforms.transforms if not is_intensity(step)])
        if any(self.configuration_manager.use_mask_for_norm):
            transforms = with_background_kept(transforms)
        # the strong views of a teacher's student change intensities instead
        unlabeled_transforms = transforms if self.recipe.teacher is None else moved
        unlabeled_pairs, replaced = self.recipe.unlabeled_pairs(self.batch_size)
        train_loader = PairLoader(
            labeled,
            self.samplers.unlabeled,
            self.batch_size,
            unlabeled_pairs,
            initial_patch_size,
            patch_size,
            self.label_manager,
            self.oversample_foreground_percent,
            self.recipe.fusion,
            located(transforms),
            located(unlabeled_transforms),
            self.views(),
            replaced,
            first_batch=self.current_epoch * self.num_iterations_per_epoch,
            **seeding,
        )
        val_loader = SeededLoader(
            self.dataset_class(self.preprocessed_dataset_folder, val),
            self.batch_size,
            patch_size,
            patch_size,
            self.label_manager,
            self.oversample_foreground_percent,
            transforms=self.get_validation_transforms(None),
            first_batch=self.current_epoch * self.num_val_iterations_per_epoch,
            **seeding,
        )
        workers = get_allowed_n_proc_DA()
        return self._augmenter(train_loader, workers), self._augmenter(val_loader, workers // 2)

    def _augmenter(self, loader, workers: int):
        if workers == 0:
            return SingleThreadedAugmenter(loader, None)
        augmenter = NonDetMultiThreadedAugmenter(
            loader, None, workers, max(3, workers // 2), pin_memory=self.device.type == "cuda", wait_time=0.002
        )
        next(augmenter)  # starts the workers
        return augmenter
