"""CMCTrainer: labelled and unlabelled pairs in one step, Dice + CE, CSC and CAC."""

import os

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from torch import Tensor, autocast, nn

from nnunet_cmc.data.presence import channel_names
from nnunet_cmc.losses import alpha, beta
from nnunet_cmc.networks import CMCNet, CMCOutput
from nnunet_cmc.networks.rows import rows_of
from nnunet_cmc.trainers.checks import require_no_lost_part
from nnunet_cmc.trainers.gradients import gradient_norms
from nnunet_cmc.trainers.logger import SeriesLogger, dice_of
from nnunet_cmc.trainers.old.consistency import Consistency, rows_by_form
from nnunet_cmc.trainers.old.distributed import of_all_ranks
from nnunet_cmc.trainers.old.resumable_trainer import ResumableTrainer
from nnunet_cmc.trainers.old.schedule import WarmUpPolyLR
from nnunet_cmc.trainers.validation import confusion_alone, mean_dice, updated_reliability


class CMCTrainer(ResumableTrainer):
    """``L = L_Sup + alpha L_CSC + beta L_CAC`` (CMC, Zhou et al., MICCAI 2024), every term doing what its name says.

    L_Sup is Dice + CE on every present modality of the labelled rows. From random weights AdamW trains at the planner's
    learning rate; loaded ones (``-pretrained_weights`` with a file of ``nnunet_cmc weights``) are fine-tuned by Adam.
    """

    epochs: int | None = None  # nnU-Net's, if None
    iterations: tuple[int, int] | None = None  # per epoch, training and validation; nnU-Net's, if None
    consistency_losses = Consistency
    half_precision: torch.dtype | None = None  # of autocast; on a GPU bfloat16 or, where it has none, float16
    fine_tuning_rate: float | None = 1e-5  # the paper's; the planner's, if None
    batch_dice: bool | None = None  # Dice over the rows of a batch, or of each by itself; as planned, if None
    terms = ("supervised", "csc", "cac")  # of the loss
    weight_of = {"csc": "alpha", "cac": "beta"}  # noqa: RUF012 - names of the weights; other terms have weight 1

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
        self.weight_decay = 1e-2
        if self.epochs:
            self.num_epochs = self.epochs
        if self.iterations:
            self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.iterations
        if self.device.type == "cuda":
            self.half_precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        if self.half_precision is not torch.float16:
            self.grad_scaler = None  # bfloat16 has the range of float32
        self.gradients: dict[str, float] = {}  # at the epoch's first iteration
        names = channel_names(dataset_json)
        self.logger.local_logger = SeriesLogger(
            {
                "term": [*self.terms, *self.weight_of.values()],
                "similarity": [f"similarity/{pair}" for term in ("csc", "cac") for pair in (term, f"{term}/others")],
                **{
                    f"gradient at {kind}s": [f"gradient/{term}/{kind} {m}" for term in self.terms for m in names]
                    for kind in ("encoder", "decoder")
                },
            },
            names,
        )

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

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        """Nothing; a part changes the plans' network here, for training and prediction alike, after its ``super()``."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        require_no_lost_part(cls, CMCTrainer)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch."""

    def _do_i_compile(self) -> bool:
        return False  # which encoders run depends on the data: the network as a whole has no fixed graph

    def initialize(self) -> None:
        """As nnU-Net's, and the losses between modalities with their memory; ``nnUNet_compile=1`` compiles."""
        super().initialize()
        if os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t"):  # noqa: SIM112 - nnU-Net's name
            self.bare_network.stacked_on = None  # a compiled encoder is few operators already
            for part in (*self.bare_network.encoders, *self.bare_network.decoders):
                part.compile(fullgraph=True)
        self.consistency = self.consistency_losses(
            self.num_input_channels, self.label_manager.num_segmentation_heads, self.bare_network.feature_channels
        ).to(self.device)

    def _build_loss(self) -> DC_and_CE_loss:
        return self.dice_and_ce()

    def dice_and_ce(self, ignore_label: int | None = None) -> DC_and_CE_loss:
        """nnU-Net's loss; what it is given are the rows of all ranks already."""
        batch_dice = self.configuration_manager.batch_dice if self.batch_dice is None else self.batch_dice
        dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
        return DC_and_CE_loss(dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss)

    def configure_optimizers(self):
        """AdamW on all that is not frozen, at the planned rate, falling polynomially after a short rise."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.initial_lr, weight_decay=self.weight_decay, fused=True)
        return optimizer, WarmUpPolyLR(optimizer, self.initial_lr, self.num_epochs, self.num_iterations_per_epoch)

    def on_train_start(self) -> None:
        """As nnU-Net's; by now all weights are loaded."""
        super().on_train_start()
        self.choose_rate()

    def choose_rate(self) -> None:
        """Let the learning rate follow from where the weights are from."""
        rate = self.fine_tuning_rate if self.bare_network.pretrained else None
        if rate is None:
            origin = "pretrained weights" if self.bare_network.pretrained else "scratch"
            self.print_to_log_file(f"Training from {origin}: AdamW at the planned learning rate {self.initial_lr:g}.")
            return
        self.print_to_log_file(f"Training from pretrained weights: Adam at the fine-tuning learning rate {rate:g}.")
        self.initial_lr = self.lr_scheduler.initial_lr = rate
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0  # AdamW without decay is Adam

    def own_state(self) -> dict:
        return {**super().own_state(), "consistency_state": self.consistency.state_dict(), "gradients": self.gradients}

    def load_own_state(self, checkpoint: dict) -> None:
        super().load_own_state(checkpoint)
        self.consistency.load_state_dict(checkpoint["consistency_state"])
        self.gradients = checkpoint["gradients"]

    # ---- one step

    def update(self, batch: dict) -> dict:
        """One update from a batch of :class:`PairLoader`; returns every term of the loss."""
        self.lr_scheduler.step(self.current_epoch + self.iteration / self.num_iterations_per_epoch)
        batch = {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) and key != "pairs" else value
            for key, value in batch.items()
        }  # the host reads the pairs
        batch = self.completed(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            output = self.network(batch["data"], batch["fusion"])
            if self.is_ddp:
                output, batch = of_all_ranks(output, batch)
            terms = self.loss_terms(output, batch)
            weights = self.consistency_weights()
            weighted = [weights.get(self.weight_of.get(name, ""), 1.0) * term for name, term in terms.items()]
            loss = torch.stack(weighted).sum()
        if self.iteration == 0:
            self._measure_gradients(terms)
        self._step(loss)
        registered, others = rows_by_form(batch["pairs"])
        numbers = {"loss": loss, **terms}
        for name, (partners, strangers) in self.consistency.similarity.items():
            numbers |= {f"similarity/{name}": partners, f"similarity/{name}/others": strangers}
        values = torch.stack([number.detach().float() for number in numbers.values()]).tolist()
        return {
            **dict(zip(numbers, values, strict=True)),
            **weights,
            "registered": len(registered),
            "unpaired": len(others) // 2,
        }

    def completed(self, batch: dict) -> dict:
        """The batch, on the device, with what a term of the loss needs beside: nothing here."""
        return batch

    def _precision(self):
        half = self.half_precision
        return dummy_context() if half is None else autocast(self.device.type, half)

    def _measure_gradients(self, terms: dict[str, Tensor]) -> None:
        """What each term, unweighted, does at each encoder and decoder; as dear as a backward pass for each."""
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 1.0
        names, network = channel_names(self.dataset_json), self.bare_network
        parts = {f"encoder {name}": part for name, part in zip(names, network.encoders, strict=True)}
        parts |= {f"decoder {name}": part for name, part in zip(names, network.decoders, strict=True)}
        for term in self.terms:
            for part, norm in gradient_norms(terms[term], parts, scale).items():
                self.gradients[f"gradient/{term}/{part}"] = norm

    def loss_terms(self, output: CMCOutput, batch: dict) -> dict[str, Tensor]:
        """``supervised``, ``csc`` and ``cac``, each a scalar."""
        csc, cac = self.consistency(output, *(batch.get(key) for key in ("target", "pairs", "positions", "joint")))
        return {"supervised": self._supervised(output, batch), "csc": csc, "cac": cac}

    schedules = (alpha, beta)  # the paper's, of the weights of CSC and of CAC

    def consistency_weights(self) -> dict[str, float]:
        """By name, ``alpha`` (of CSC) and ``beta`` (of CAC) at this epoch."""
        of_csc, of_cac = type(self).schedules
        epoch, last = self.current_epoch, self.num_epochs
        return {"alpha": of_csc(epoch, last), "beta": of_cac(epoch, last)}

    def _supervised(self, output: CMCOutput, batch: dict) -> Tensor:
        n_labeled = len(batch["target"])
        decoded = batch["fusion"].diagonal(dim1=1, dim2=2)[:n_labeled] & output.present[:n_labeled]
        return self.per_modality(self.loss, output.logits[:n_labeled], decoded, batch["target"])

    @staticmethod
    def per_modality(loss: nn.Module, logits: Tensor, decoded: Tensor, target: Tensor) -> Tensor:
        """``loss`` of each modality over the rows that decoded it, and their mean: none hides another's failure.

        Args:
            loss: of logits ``(n, K, D, H, W)`` and labels ``(n, 1, D, H, W)``.
            logits: ``(N, M, K, D, H, W)``.
            decoded: ``(N, M)`` bool.
            target: ``(N, 1 or M, D, H, W)``, for all modalities or for each.
        """
        target = target.expand(-1, decoded.shape[1], -1, -1, -1)
        rows = rows_of(decoded.tolist())
        if not rows:
            return logits[:0].sum()
        return torch.stack([loss(logits[of_m, m], target[of_m, m : m + 1]) for m, of_m in rows.items()]).mean()

    def _step(self, loss: Tensor) -> None:
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

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As nnU-Net's, and the mean of every term into the log."""
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        means = {name: _mean(outputs[name]) for name in (*self.terms, *self.weight_of.values())}
        similarities = {name: _mean(values) for name, values in outputs.items() if name.startswith("similarity/")}
        for name, value in {**means, **similarities, **self.gradients}.items():
            self.logger.log(name, value, self.current_epoch)
        for title, values in (("terms", means), ("similarities", similarities), ("gradients", self.gradients)):
            short = {name.removeprefix("similarity/").removeprefix("gradient/"): v for name, v in values.items()}
            self.print_to_log_file(title, ", ".join(f"{name} {value:.4g}" for name, value in short.items()))
        self.print_to_log_file(f"pairs {sum(outputs['registered'])} registered, {sum(outputs['unpaired'])} unpaired")

    def validation_step(self, batch: dict) -> dict:
        """As nnU-Net's, and what each modality predicts alone."""
        result = super().validation_step(batch)
        data, target = (batch[key].to(self.device, non_blocking=True) for key in ("data", "target"))
        with self._precision():
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
        self.calibrate(counts)

    def calibrate(self, confusion: np.ndarray) -> None:
        """Let the network believe each modality about each class as it deserves, from ``confusion (M, K, K)`` alone."""
        reliability = self.bare_network.reliability
        reliability.copy_(updated_reliability(reliability, confusion))


def _mean(values: list[float]) -> float:
    """Of those that are numbers: there may be nothing to compare in a step."""
    numbers = [value for value in values if value == value]
    return float(sum(numbers) / len(numbers)) if numbers else float("nan")
