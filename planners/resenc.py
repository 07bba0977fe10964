"""Plans with nnU-Net's residual encoder, for training without foundation weights."""

from nnunet_cmc.planners.cmc_planner import CMCPlanner


class CMCPlannerResEnc(CMCPlanner):
    """Plan with a residual encoder per modality, trained from scratch."""

    plans_name = "CMCResEncPlans"
    learning_rate = 1e-3
    gb_of_weights, gb_per_patch = 1.02, 1.2
    normalization: dict[str, str] = {}  # noqa: RUF012 - nnU-Net's own schemes
    encoder = "residual"
    encoder_kwargs = {  # noqa: RUF012
        "features_per_stage": [32, 64, 128, 256, 320],
        "n_blocks_per_stage": [1, 3, 4, 6, 6],
    }
    decoder_channels = (32, 64, 128, 256)
