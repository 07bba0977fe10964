"""Plans with the U-Net of the CLIP-Driven Universal Model."""

from nnunet_cmc.planners.cmc_planner import CMCPlanner


class CMCPlannerUniversal(CMCPlanner):
    """Plan with the Universal Model's encoder and decoder; the deepest of its four maps is fused."""

    plans_name = "CMCUniversalPlans"
    learning_rate = 1e-3
    gb_of_weights, gb_per_patch = 0.32, 1.95
    # The released weights have seen CT only; another modality gets the same range.
    normalization = {  # noqa: RUF012
        "CTNormalization": "CTWindowNormalization",
        "ZScoreNormalization": "PercentileNormalization",
    }
    encoder = "universal"
    encoder_kwargs = {"channels": [64, 128, 256, 512], "stem": 32}  # noqa: RUF012
    decoder_channels = (64, 128, 256)
