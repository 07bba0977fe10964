"""Plans that a CPU trains in minutes: the same path with a small vision transformer and a small cube."""

from nnunet_cmc.planners.cmc_planner import CMCPlanner


class CMCPlannerTiny(CMCPlanner):
    """Plan with a vision transformer of width 96 with tokens of 8 voxels, on cubes of 48."""

    plans_name = "CMCTinyPlans"
    patch_size = 48
    batch_size = 2
    coarsest_spacing = None  # the small cube needs coarse voxels to see context, and no weights expect fine ones
    learning_rate = 4e-3
    gb_of_weights, gb_per_patch = 0.02, 0.03
    normalization: dict[str, str] = {}  # noqa: RUF012 - nnU-Net's own schemes
    encoder_kwargs = {  # noqa: RUF012
        "image_size": 48,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "global_blocks": [0, 1, 2, 3],
        "window_size": 14,
        "out_channels": 96,
        "axis_order": "zyx",
        "adapters": False,
        "skip_channels": [16, 32],
    }
    decoder_channels = (16, 16, 32)  # at full resolution, 8 are too few for rare classes to come up
