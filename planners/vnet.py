"""Plans with the V-Net of the paper's comparison."""

from nnunet_cmc.planners.cmc_planner import CMCPlanner


class CMCPlannerVNet(CMCPlanner):
    """Plan with V-Net (Milletari et al., 3DV 2016), as MONAI builds it: ``-tr SupTrainer`` is the paper's Sup (V-Net).

    The patch is the paper's; the learning rate is ours, and untuned.
    """

    plans_name = "CMCVNetPlans"
    coarsest_spacing = None  # no weights expect a spacing
    learning_rate = 1e-3
    gb_of_weights, gb_per_patch = 0.73, 0.78
    normalization: dict[str, str] = {}  # noqa: RUF012 - nnU-Net's own schemes
    encoder = "vnet"
    encoder_kwargs = {"width": 16, "dropout": 0.5}  # noqa: RUF012
    decoder_channels = (32, 64, 128, 256)
