"""CMCTrainer for transformers that are to stay as they were pretrained."""

from nnunet_cmc.networks import ViTPyramid
from nnunet_cmc.networks.adapter import freeze_all_but_adapters
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer


class CMCTrainerAdapters(CMCTrainer):
    """Of the transformers only adapters and norms train; so does everything outside of them.

    Raises:
        ValueError: the planned encoder has no adapters, or its weights are random.
    """

    fine_tuning_rate = None  # what trains is new, but for the norms

    def configure_optimizers(self):
        """As CMCTrainer's, which keeps no state for what is frozen here."""
        for encoder in self.network.encoders:
            if not isinstance(encoder, ViTPyramid):
                raise ValueError(
                    f"{type(self).__name__} trains a transformer's adapters, which the encoder of the plans "
                    f"{self.plans_manager.plans_name} has not: train with -tr CMCTrainer, or with -p CMCPlans."
                )
            freeze_all_but_adapters(encoder.vit)
        return super().configure_optimizers()

    def on_train_start(self) -> None:
        """As CMCTrainer's, once it is sure that what is frozen is worth it."""
        if not self.was_initialized:
            self.initialize()
        if not self.bare_network.pretrained:
            raise ValueError(
                f"{type(self).__name__} freezes the encoders, whose weights are random: give it a file of "
                "nnunet_cmc weights with -pretrained_weights, or train with -tr CMCTrainer."
            )
        super().on_train_start()
        sizes = {trains: 0 for trains in (True, False)}
        for parameter in self.network.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        self.print_to_log_file(f"{sizes[True]:,} parameters train, {sizes[False]:,} are frozen.")
