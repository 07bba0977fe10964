"""CMCTrainer: the loop that trains a recipe."""

from functools import cached_property, partial
from math import isnan
from typing import cast

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from torch import Tensor, autocast, nn

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import totals
from nnunet_cmc.losses.schedules import CONSTANT
from nnunet_cmc.networks import CMCNet, CMCOutput
from nnunet_cmc.networks.changes import build_changed
from nnunet_cmc.networks.combination import ByReliability
from nnunet_cmc.trainers.batch_statistics import pseudo_foreground, shown
from nnunet_cmc.trainers.gradients import gradient_norms
from nnunet_cmc.trainers.logger import SeriesLogger, dice_of, pseudo_foreground_of
from nnunet_cmc.trainers.moving_average import MovingAverage, momentum_of
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.reporting_trainer import ReportingTrainer
from nnunet_cmc.trainers.scan_labeler import ScanLabeler
from nnunet_cmc.trainers.teacher import MeanTeacher
from nnunet_cmc.trainers.terms import LossTerm, Setting, Supervised
from nnunet_cmc.trainers.terms.pair_term import rows_by_form
from nnunet_cmc.trainers.validation_dice import confusion_alone, mean_dice_of_shown, updated_reliability
from nnunet_cmc.utils.allocator import keep_freed_memory


class CMCTrainer(ReportingTrainer):
    """Train one model for all modalities, as its recipe says: see :class:`Recipe` and the table of recipes.

    ``L = L_Sup + alpha L_CSC + beta L_CAC`` (CMC, Zhou et al., MICCAI 2024) with the recipe's terms and weights.
    """

    recipe: Recipe = RECIPES["CMCTrainer"]
    half_precision: torch.dtype | None = None  # of autocast; on a GPU bfloat16 or, where it has none, float16

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net inspects this signature
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.initial_lr = self.configuration_manager.configuration["learning_rate"]
        length = self.recipe.length
        if length.epochs:
            self.num_epochs = length.epochs
        if length.iterations:
            self.num_iterations_per_epoch = length.iterations
        if length.validation:
            self.num_val_iterations_per_epoch = length.validation
        if self.device.type == "cuda":
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            self.half_precision = torch.bfloat16 if has_bfloat16 else torch.float16
        else:
            keep_freed_memory()
        if self.half_precision is not torch.float16:
            self.grad_scaler = None  # bfloat16 has the range of float32
        self.gradients: dict[str, float] = {}  # at the epoch's first iteration
        times = self.recipe.whole_scan_labels
        self.labeler = ScanLabeler(times, self.output_folder, self.print_to_log_file) if times else None

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
    ) -> CMCNet:
        """Build the plans' CMCNet with the recipe's changes, for training and prediction alike."""
        build = partial(
            get_network_from_plans,
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
        )
        return build_changed(build, cls.recipe.network)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: the recipe decides whether CMCNet has deep supervision."""

    def _do_i_compile(self) -> bool:
        return False  # which encoders run depends on the data: the network as a whole has no fixed graph

    def initialize(self) -> None:
        """Initialize as nnU-Net does, and build the recipe's terms and average; ``nnUNet_compile=1`` compiles."""
        super().initialize()
        names = self.description.modalities
        terms = [term.name for term in self.recipe.terms]
        compared = [term.name for term in self.recipe.terms if term.loss.compares]
        similarities = [f"similarity/{each}" for term in compared for each in (term, f"{term}/others")]
        self.logger.local_logger = SeriesLogger(
            {
                "term": [*terms, *self.weights()],
                **({"similarity": similarities} if similarities else {}),
                "gradient": [f"gradient/{term}/{part}" for term in terms for part in self.bare_network.parts(names)],
                **({"foreground share": list(map(pseudo_foreground_of, names))} if self.recipe.pseudo_labels else {}),
            },
            names,
        )  # fmt: skip
        planned, wanted = self.configuration_manager.batch_dice, self.recipe.batch_dice
        setting = Setting(
            self.num_input_channels,
            self.num_classes,
            self.bare_network.channels[-1],
            planned if wanted is None else wanted,
        )
        self.terms = nn.ModuleDict({term.name: term.build(setting) for term in self.recipe.terms}).to(self.device)
        self.loss = self.terms[Supervised.name].loss  # what nnU-Net validates with
        self.average = self._build_average()
        if self.compiles:
            torch._functorch.config.donated_buffer = False  # gradients are measured by term, before the backward pass
            for network in filter(None, (self.bare_network, self.average)):
                for each in (module for module in network.modules() if isinstance(module, CMCNet)):  # a peer, too
                    each.compile_parts()

    def _build_average(self) -> MovingAverage | None:
        """Build what predicts the pseudo-labels: a mean teacher, a moving average for whole scans, or nothing."""
        iterations = self.num_epochs * self.num_iterations_per_epoch
        if self.recipe.teacher is not None:
            return MeanTeacher(self.bare_network, self.recipe.teacher, iterations)
        if self.recipe.whole_scan_labels is not None:
            return MovingAverage(self.bare_network, momentum_of(iterations))
        return None

    @property
    def teacher(self) -> MeanTeacher | None:
        """The teacher of a recipe that has one."""
        return self.average if isinstance(self.average, MeanTeacher) else None

    @property
    def num_classes(self) -> int:
        """Number of classes K, with background."""
        return self.label_manager.num_segmentation_heads

    def _build_loss(self) -> nn.Module:
        return nn.Identity()  # the terms are built when the network is known

    def configure_optimizers(self):
        """Build the recipe's optimizer and schedule for all parameters that are not frozen."""
        return self.recipe.optimizer.build(
            self.network, self.initial_lr, self.num_epochs, self.num_iterations_per_epoch
        )

    def on_train_start(self) -> None:
        """Start as nnU-Net does, and choose the learning rate, now that all weights are loaded."""
        if not self.was_initialized:
            self.initialize()
        pretrained = bool(self.bare_network.pretrained)
        if self.recipe.needs_pretrained and not pretrained:
            raise ValueError(
                f"{type(self).__name__} freezes the encoders, whose weights are random: give it a file of "
                "nnunet_cmc weights with -pretrained_weights, or train with -tr CMCTrainer."
            )
        if self.labeler is not None:
            self.labeler.resume(self.current_epoch, self.num_epochs, removes=self.local_rank == 0)
            self.pseudo_labels = self.labeler.labels
        super().on_train_start()
        self.print_to_log_file(f"Recipe of {type(self).__name__}:")
        for what, value in self.recipe.rows().items():
            self.print_to_log_file(f"  {what}: {value}")
        self.print_to_log_file(self.recipe.optimizer.start(self.optimizer, self.lr_scheduler, pretrained))
        self.initial_lr = self.lr_scheduler.initial_lr
        self._tell_what_is_fused()
        sizes = {trains: 0 for trains in (True, False)}
        for parameter in self.network.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        self.print_to_log_file(f"{sizes[True]:,} parameters train, {sizes[False]:,} are frozen.")
        if self.average is not None and not self.average.n_averaged:
            self.average.update_parameters(self.bare_network)  # a new average starts from the loaded weights

    def _tell_what_is_fused(self) -> None:
        """Tell the network, and the log, which modalities labelled cases have on one grid, so that they are fused."""
        if self.bare_network.fusion_weights is None:
            return
        together = self.samplers.labeled.together(len(self.description.modalities))
        self.bare_network.fusion_weights.together.copy_(torch.from_numpy(together))
        names = self.description.modalities
        apart = [f"{names[m]} and {names[n]}" for m, n in np.argwhere(np.triu(~together, 1))]
        if apart:
            self.print_to_log_file(
                f"No labelled case has these on one grid: {', '.join(apart)}. Their fused features are never trained "
                "with a label: for predictions from them, validation Dice weighs the features."
            )

    def on_epoch_start(self) -> None:
        """Start as nnU-Net does, after making the pseudo-labels that this epoch is the first to train on."""
        while self.labeler is not None and self.labeler.is_due(self.current_epoch, self.num_epochs):
            self._label_unlabeled_scans(self.labeler)
        super().on_epoch_start()

    def _label_unlabeled_scans(self, labeler: ScanLabeler) -> None:
        """Label them with the moving average of the weights, and load them with these labels."""
        assert self.average is not None, "a recipe that labels whole scans has an average"
        self.enter_epoch()
        predictor = nnUNetPredictor(use_mirroring=False, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            self.average.module, self.plans_manager, self.configuration_manager, None, self.dataset_json,
            type(self).__name__, None,
        )  # fmt: skip
        rank, ranks = (self.local_rank, torch.distributed.get_world_size()) if self.is_ddp else (0, 1)
        labeler.label(predictor, self.samplers.unlabeled_dataset, rank, ranks, self.exit_if_terminated)
        if labeler.labels != self.pseudo_labels:
            self.pseudo_labels = labeler.labels
            self.close_loaders()
            self.dataloader_train, self.dataloader_val = self.get_dataloaders()

    def own_state(self) -> dict:
        """Return what a checkpoint has beside nnU-Net's entries: terms, average, gradients, and the recipe as text."""
        state = {"terms_state": self.terms.state_dict(), "gradients": self.gradients, "recipe": self.recipe.rows()}
        return {**super().own_state(), **state, "average_state": self.average and self.average.state_dict()}

    def load_own_state(self, checkpoint: dict) -> None:
        """Restore what :meth:`own_state` returned. ValueError: the checkpoint is of another recipe."""
        recipe = self.recipe.rows()
        for what, value in checkpoint["recipe"].items():
            if what != "combination" and recipe.get(what) != value:  # whose words changed
                raise ValueError(
                    f"{self.output_folder} was trained with another recipe than {type(self).__name__} has now ({what}: "
                    f"{value}, and now: {recipe.get(what)}): train anew, without --c."
                )
        if self.average is not None and not checkpoint.get("average_state"):
            raise ValueError(
                f"The checkpoint in {self.output_folder} has no moving average of the weights, which labels the "
                "unlabelled scans: it is of an earlier version; train anew, without --c."
            )
        super().load_own_state(checkpoint)
        self.terms.load_state_dict(checkpoint["terms_state"])
        self.gradients = checkpoint["gradients"]
        if self.average is not None:
            self.average.load_state_dict(checkpoint["average_state"])

    # ---- one step

    def update(self, batch: dict) -> dict:
        """Update the network from a batch of :class:`PairLoader`, and return every term of the loss."""
        self.lr_scheduler.step(self.current_epoch + self.iteration / self.num_iterations_per_epoch)
        rows = Batch(**batch).to(self.device).recontrasted()
        weights = self.weights()
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            if self.teacher is not None:
                rows = self.teacher.teach(rows, self.num_classes, bool(weights[self.recipe.teacher_weight]))
            output = self.network(rows.data, rows.fusion)
            values = self.loss_terms(output, rows)
            weighted = [weights.get(term.weight.symbol, 1.0) * values[term.name] for term in self.recipe.terms]
            loss = torch.stack(weighted).sum()
        if self.iteration == 0:
            self._measure_gradients(values)
        self._step(loss)
        if self.average is not None:
            self.average.update_parameters(self.bare_network)
        return self._numbers(loss, values, rows) | weights

    def loss_terms(self, output: CMCOutput, batch: Batch) -> dict[str, Tensor]:
        """Compute every term of the loss, a scalar each, unweighted."""
        for term in self.terms.values():
            cast(LossTerm, term).progress = self.current_epoch / self.num_epochs
        return {term.name: self.terms[term.name](output, batch) for term in self.recipe.terms}

    def weights(self) -> dict[str, float]:
        """Return the weights of the terms at this epoch by symbol, except constant ones."""
        schedules = [term.weight for term in self.recipe.terms if term.weight != CONSTANT]
        return {schedule.symbol: schedule.at(self.current_epoch, self.num_epochs) for schedule in schedules}

    def _numbers(self, loss: Tensor, values: dict[str, Tensor], batch: Batch) -> dict[str, float]:
        """Collect the logged numbers of a step over all ranks; on one GPU the host waits for it once."""
        registered, others = rows_by_form(batch.pairs)
        n_registered, n_unpaired = totals([len(registered), len(others) // 2], loss.device)
        numbers = {"loss": loss, **values}
        for name in self.terms:
            if similarity := cast(LossTerm, self.terms[name]).similarity:
                positive, negative = similarity
                numbers |= {f"similarity/{name}": positive, f"similarity/{name}/others": negative}
        numbers |= shown(batch, self.description.modalities)
        if batch.pseudo_targets is not None:
            numbers |= pseudo_foreground(batch, self.description.modalities, self.num_classes)
        found = torch.stack([number.detach().float() for number in numbers.values()]).tolist()
        return {**dict(zip(numbers, found, strict=True)), "registered": n_registered, "unpaired": n_unpaired}

    def _precision(self):
        half = self.half_precision
        return dummy_context() if half is None else autocast(self.device.type, half)

    def _measure_gradients(self, terms: dict[str, Tensor]) -> None:
        """Measure the gradient of each unweighted term at each encoder and decoder, with a backward pass per term.

        A term that has nothing in this batch is an exact 0, on all ranks, and has no gradient.
        """
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 1.0
        parts = self.bare_network.parts(self.description.modalities)
        for term in self.terms:
            norms = gradient_norms(terms[term], parts, scale) if terms[term] else dict.fromkeys(parts, 0.0)
            for part, norm in norms.items():
                self.gradients[f"gradient/{term}/{part}"] = norm

    def _step(self, loss: Tensor) -> None:
        """Run nnU-Net's backward pass and optimizer step."""
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

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Do as nnU-Net does, and write the mean of every term into the log."""
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        means = {name: _mean(outputs[name]) for name in (*self.terms, *self.weights())}
        similarities = {name: _mean(values) for name, values in outputs.items() if name.startswith("similarity/")}
        series = map(pseudo_foreground_of, self.description.modalities) if self.recipe.pseudo_labels else ()
        foreground = {name: _mean(outputs.get(name, [])) for name in series}
        for name, value in {**means, **similarities, **foreground, **self.gradients}.items():
            self.logger.log(name, value, self.current_epoch)
        rows = {name: sum(values) for name, values in outputs.items() if name.startswith("shown/")}
        for title, values in (
            ("terms", means),
            ("similarities", similarities),
            ("gradients", self.gradients),
            ("share of foreground in pseudo-labels:", foreground),
            ("rows shown:", rows),
        ):
            short = {name.partition("/")[2] if values is not means else name: v for name, v in values.items()}
            if short:
                self.print_to_log_file(title, ", ".join(f"{name} {value:.4g}" for name, value in short.items()))
        self.print_to_log_file(
            f"pairs {sum(outputs['registered']):g} registered, {sum(outputs['unpaired']):g} unpaired"
        )

    def validation_step(self, batch: dict) -> dict:
        """Do as nnU-Net does, and count what each modality alone predicts."""
        result = super().validation_step(batch)
        data, target = (batch[key].to(self.device, non_blocking=True) for key in ("data", "target"))
        with self._precision():
            return {**result, "alone": confusion_alone(self.network, data, target)}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Do as nnU-Net does, and write the pseudo Dice of each modality into the log."""
        super().on_validation_epoch_end(val_outputs)
        counts = sum(output["alone"] for output in val_outputs)
        if self.is_ddp:
            parts = [counts] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, counts)
            counts = sum(parts)
        dice = dict(zip(self.description.modalities, map(mean_dice_of_shown, counts), strict=True))
        for name, value in dice.items():
            self.logger.log(dice_of(name), value, self.current_epoch)
        self.print_to_log_file("Pseudo dice alone", ", ".join(f"{name} {value:.4f}" for name, value in dice.items()))
        self.calibrate(counts)
        for term in self.terms.values():
            cast(LossTerm, term).validated(counts)

    @cached_property
    def taught_classes(self) -> np.ndarray:
        """Which classes some labelled case of each modality shows, ``(M, K)`` bool."""
        return self.samplers.labeled.classes(len(self.description.modalities), self.num_classes)

    def calibrate(self, confusion: np.ndarray) -> None:
        """Update the weights of the modalities from validation Dice: of their predictions, or of fused features.

        Args:
            confusion: ``(M, K, K)``, of each modality alone.
        """
        if not self.recipe.calibrated:
            return
        for network in filter(None, (self.bare_network, self.average and self.average.module)):  # it labels scans next
            if isinstance(network.combination, ByReliability):
                reliability = network.combination.reliability
                reliability.copy_(updated_reliability(reliability, confusion, self.taught_classes))
            elif network.fusion_weights is not None:
                reliability = network.fusion_weights.reliability
                per_class = reliability[:, None].expand(-1, self.num_classes)
                reliability.copy_(updated_reliability(per_class, confusion)[:, 0])  # 0: the mean of the others


def _mean(values: list[float]) -> float:
    """Compute the mean without NaN, which stands for a step with nothing to compare."""
    numbers = [value for value in values if not isnan(value)]
    return float(sum(numbers) / len(numbers)) if numbers else float("nan")
