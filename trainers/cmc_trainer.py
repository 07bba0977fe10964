"""CMCTrainer: labelled and unlabelled pairs in one step, Dice + CE, CSC and CAC."""

import os
from os.path import join

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from torch import Tensor, autocast

from nnunet_cmc.data.cases import Stream, UnlabeledDataset
from nnunet_cmc.data.laterality import LEFT_RIGHT, sided_classes
from nnunet_cmc.data.pairs import PairLoader
from nnunet_cmc.data.preprocessor import unlabeled_folder
from nnunet_cmc.data.presence import channel_names
from nnunet_cmc.data.seeding import SeededLoader, seed_from_environment
from nnunet_cmc.data.splits import load_fold
from nnunet_cmc.losses import alpha, beta
from nnunet_cmc.networks import CMCNet, CMCOutput
from nnunet_cmc.trainers.checks import require_supported
from nnunet_cmc.trainers.consistency import Consistency, rows_by_form
from nnunet_cmc.trainers.logger import TermLogger, dice_of
from nnunet_cmc.trainers.schedule import WarmUpPolyLR
from nnunet_cmc.trainers.validation import confusion_alone, mean_dice

TERMS = ("supervised", "csc", "cac", "reliability", "alpha", "beta")


class CMCTrainer(nnUNetTrainer):
    """``L = L_Sup + alpha L_CSC + beta L_CAC`` (CMC, Zhou et al., MICCAI 2024), every term doing what its name says.

    L_Sup is Dice + CE on every present modality of the labelled rows. From random weights AdamW trains at the planner's
    learning rate; loaded ones (``-pretrained_weights`` with a file of ``nnunet_cmc weights``) are fine-tuned by Adam.
    """

    seed: int | None = None  # with it, and in-process loading, a run on the CPU is reproducible to the bit
    epochs: int | None = None  # nnU-Net's, if None
    iterations: tuple[int, int] | None = None  # per epoch, training and validation; nnU-Net's, if None
    modality_dropout = 0.5
    pair_loader = PairLoader
    consistency_losses = Consistency
    fine_tuning_rate: float | None = 1e-5  # the paper's; the planner's, if None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net inspects this signature
    ):
        require_supported(plans, configuration, dataset_json, type(self).__name__)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.initial_lr = self.configuration_manager.configuration["learning_rate"]
        self.weight_decay = 1e-2
        if self.epochs:
            self.num_epochs = self.epochs
        if self.iterations:
            self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.iterations
        if self.seed is None:
            self.seed = seed_from_environment()
        self.iteration = 0  # of the epoch
        self.logger.local_logger = TermLogger(TERMS, channel_names(dataset_json))

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
    ) -> CMCNet:
        """The plans' CMCNet, as this trainer wants it; it has no deep supervision."""
        network = get_network_from_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
        )
        cls.modify_network(network)
        return network

    @staticmethod
    def modify_network(network: CMCNet) -> None:
        """Nothing; an ablation changes the plans' network here, for training and prediction alike."""

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch."""

    def _do_i_compile(self) -> bool:
        return False  # which encoders run depends on the data: every batch would be another graph

    def initialize(self) -> None:
        """As nnU-Net's, and the losses between modalities with their memory."""
        if self.seed is not None:
            torch.manual_seed(self.seed)
        super().initialize()
        self.consistency = self.consistency_losses(
            self.num_input_channels, self.label_manager.num_segmentation_heads, self.bare_network.feature_channels
        ).to(self.device)

    @property
    def bare_network(self) -> CMCNet:
        """The network without the wrapper of a distributed training."""
        return self.network.module if self.is_ddp else self.network

    def configure_optimizers(self):
        """AdamW on all that is not frozen, at the planned rate, falling polynomially after a short rise."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, WarmUpPolyLR(optimizer, self.initial_lr, self.num_epochs, self.num_iterations_per_epoch)

    def on_train_start(self) -> None:
        """As nnU-Net's; by now all weights are loaded, and the learning rate follows from where they are from."""
        super().on_train_start()
        rate = self.fine_tuning_rate if self.bare_network.pretrained else None
        if rate is None:
            origin = "pretrained weights" if self.bare_network.pretrained else "scratch"
            self.print_to_log_file(f"Training from {origin}: AdamW at the planned learning rate {self.initial_lr:g}.")
            return
        self.print_to_log_file(f"Training from pretrained weights: Adam at the fine-tuning learning rate {rate:g}.")
        self.initial_lr = self.lr_scheduler.initial_lr = rate
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0  # AdamW without decay is Adam

    # ---- data

    def do_split(self) -> tuple[list[str], list[str]]:
        """Labelled and validation cases of the fold; nnU-Net makes the file if there is none."""
        if self.fold == "all" or not os.path.isfile(self._splits_file):
            return super().do_split()
        fold = load_fold(self._splits_file, self.fold)
        self.print_to_log_file(
            f"Fold {self.fold} of {self._splits_file}: {len(fold.train)} labelled and {len(fold.val)} validation "
            f"cases, {len(fold.unlabeled)} with a hidden label."
        )
        return fold.train, fold.val

    @property
    def _splits_file(self) -> str:
        return join(self.preprocessed_dataset_folder_base, "splits_final.json")

    def get_streams(self) -> tuple[Stream, Stream | None, list[str]]:
        """Labelled stream, unlabelled stream (None if there is no case for it), and the validation cases.

        Raises:
            ValueError: a case of the fold is not preprocessed, there is nothing to validate on, or a modality has no
                labelled case.
        """
        train, val = self.do_split()
        folder = str(self.preprocessed_dataset_folder)
        hidden = [] if self.fold == "all" else load_fold(self._splits_file, self.fold).unlabeled
        folders = dict.fromkeys(hidden, folder)
        extra = unlabeled_folder(folder)
        for case in UnlabeledDataset.get_identifiers(extra):
            if case in {*train, *val, *hidden}:
                raise ValueError(f"Case {case} is in imagesTr and in imagesUn: rename one of them, preprocess again.")
            folders[case] = extra
        missing = sorted({*train, *val, *hidden} - set(self.dataset_class.get_identifiers(folder)))
        if missing:
            raise ValueError(
                f"Case {missing[0]} of fold {self.fold} is not in {folder} ({len(missing)} such cases): preprocess "
                "again, or correct splits_final.json."
            )
        if not val:
            raise ValueError(f"Fold {self.fold} of {self._splits_file} has no validation case: move one into its val.")
        labeled = Stream(self.dataset_class(folder, train), self.dataset_json)
        unlabeled = Stream(UnlabeledDataset(folders), self.dataset_json) if folders else None
        self._report(labeled, unlabeled)
        return labeled, unlabeled, val

    def _report(self, labeled: Stream, unlabeled: Stream | None) -> None:
        for modality, name in enumerate(channel_names(self.dataset_json)):
            count = labeled.count(modality)
            if not count:
                raise ValueError(
                    f"Modality {name} (channel {modality}) has no labelled case in fold {self.fold}: label a case of "
                    "it, or move one from val to train in splits_final.json."
                )
            without = unlabeled.count(modality) if unlabeled else 0
            self.print_to_log_file(f"{name}: {count} labelled and {without} unlabelled cases.")
        if unlabeled is None:
            self.print_to_log_file("There is no unlabelled case: training is supervised (no CAC).")

    def mirror_axes(self, labeled: Stream) -> tuple[int, ...]:
        """Left and right, unless a class has a side. On canonical axes no body is upside down or back to front."""
        names = {label: name for name, label in self.dataset_json["labels"].items()}
        sided = [names[label] for label in sided_classes(labeled.dataset)]
        if sided:
            classes = ", ".join(sided)
            self.print_to_log_file(f"No mirroring: as far as one can tell, {classes} lie on one side of the body.")
            return ()
        self.print_to_log_file("Mirroring left and right: every class occurs on both sides of the body.")
        return (LEFT_RIGHT,)

    def get_dataloaders(self):
        """Pairs for training, nnU-Net's patches for validation."""
        patch_size = self.configuration_manager.patch_size
        rotation, dummy_2d, initial_patch_size, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        labeled, unlabeled, val = self.get_streams()
        mirror_axes = self.mirror_axes(labeled)
        self.inference_allowed_mirroring_axes = mirror_axes or None  # nnU-Net's predictor takes no empty tuple
        seeding = {"seed": self.seed, "rank": self.local_rank}
        train_loader = self.pair_loader(
            labeled,
            unlabeled,
            self.batch_size,
            initial_patch_size,
            patch_size,
            self.label_manager,
            self.oversample_foreground_percent,
            self.modality_dropout,
            self.get_training_transforms(patch_size, rotation, None, mirror_axes, dummy_2d),
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

    # ---- one step

    def train_step(self, batch: dict) -> dict:
        """One update from a batch of :class:`PairLoader`; returns every term of the loss."""
        self.lr_scheduler.step(self.current_epoch + self.iteration / self.num_iterations_per_epoch)
        self.iteration += 1
        batch = {k: v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            output = self.network(batch["data"], batch["fusion"])
            terms = self.loss_terms(output, batch)
            weights = self.consistency_weights()
            agreement = weights["alpha"] * terms["csc"] + weights["beta"] * terms["cac"]
            loss = terms["supervised"] + agreement + terms["reliability"]
        self._update(loss)
        registered, others = rows_by_form(batch["pairs"])
        return {
            "loss": float(loss.detach()),
            **{name: float(term.detach()) for name, term in terms.items()},
            **weights,
            "registered": len(registered),
            "unpaired": len(others) // 2,
        }

    def loss_terms(self, output: CMCOutput, batch: dict) -> dict[str, Tensor]:
        """``supervised``, ``csc``, ``cac`` and ``reliability``, each a scalar."""
        csc, cac = self.consistency(output, batch["target"], batch["pairs"], batch["positions"])
        return {
            "supervised": self._supervised(output, batch),
            "csc": csc,
            "cac": cac,
            "reliability": self._reliability(output, batch),
        }

    def consistency_weights(self) -> dict[str, float]:
        """The paper's ``alpha`` (of CSC) and ``beta`` (of CAC) at this epoch."""
        epoch, last = self.current_epoch, self.num_epochs
        return {"alpha": alpha(epoch, last), "beta": beta(epoch, last)}

    def _supervised(self, output: CMCOutput, batch: dict) -> Tensor:
        """Dice + CE of each modality over its labelled rows, and their mean: no modality hides another's failure."""
        target = batch["target"]
        decoded = batch["fusion"].diagonal(dim1=1, dim2=2)[: len(target)] & output.present[: len(target)]
        rows = [(m, column.nonzero()[:, 0]) for m, column in enumerate(decoded.unbind(1)) if column.any()]
        of_modality = target.expand(-1, decoded.shape[1], -1, -1, -1)
        return torch.stack([self.loss(output.logits[of_m, m], of_modality[of_m, m : m + 1]) for m, of_m in rows]).mean()

    def _reliability(self, output: CMCOutput, batch: dict) -> Tensor:
        """CE of the combined prediction where all of several modalities were fused; teaches the reliabilities alone."""
        present = output.present[: len(batch["target"])]
        whole = (batch["fusion"][: len(present)] == (present[:, None] & present[:, :, None])).all(2).all(1)
        rows = (whole & (present.sum(1) > 1)).nonzero()[:, 0]
        if not len(rows):
            return self.bare_network.reliability.sum() * 0
        combined = self.bare_network.combine(output.logits[rows].detach(), present[rows])
        return torch.nn.functional.cross_entropy(combined, batch["target"][rows, 0].long())

    def _update(self, loss: Tensor) -> None:
        """nnU-Net's backward pass and optimizer step."""
        if self.grad_scaler is None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def on_train_epoch_start(self) -> None:
        """As nnU-Net's."""
        super().on_train_epoch_start()
        self.iteration = 0

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As nnU-Net's, and the mean of every term into the log."""
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        means = {term: float(sum(outputs[term]) / len(outputs[term])) for term in TERMS}
        for term, value in means.items():
            self.logger.log(term, value, self.current_epoch)
        self.print_to_log_file("terms", ", ".join(f"{term} {value:.4f}" for term, value in means.items()))
        self.print_to_log_file(f"pairs {sum(outputs['registered'])} registered, {sum(outputs['unpaired'])} unpaired")

    def validation_step(self, batch: dict) -> dict:
        """As nnU-Net's, and what each modality predicts alone."""
        result = super().validation_step(batch)
        data, target = (batch[key].to(self.device, non_blocking=True) for key in ("data", "target"))
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            return {**result, "alone": confusion_alone(self.network, data, target)}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """As nnU-Net's, and the pseudo Dice of each modality into the log."""
        super().on_validation_epoch_end(val_outputs)
        counts = sum(output["alone"] for output in val_outputs)
        if self.is_ddp:
            parts = [counts] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, counts)
            counts = sum(parts)
        dice = dict(zip(channel_names(self.dataset_json), map(mean_dice, counts), strict=True))
        for name, value in dice.items():
            self.logger.log(dice_of(name), value, self.current_epoch)
        self.print_to_log_file("Pseudo dice alone", ", ".join(f"{name} {value:.4f}" for name, value in dice.items()))

    # ---- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint with the memory of the consistency losses; a file appears whole or not at all."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return super().save_checkpoint(filename)
        temporary = filename + ".tmp"
        checkpoint = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "consistency_state": self.consistency.state_dict(),
        }
        torch.save(checkpoint, temporary)
        os.replace(temporary, filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """As nnU-Net's, and the memory of the consistency losses."""
        super().load_checkpoint(filename_or_checkpoint)
        checkpoint = torch.load(filename_or_checkpoint, map_location=self.device, weights_only=False)
        self.consistency.load_state_dict(checkpoint["consistency_state"])
