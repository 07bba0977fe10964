"""The classes of ours that nnU-Net looks for by their names."""

# class name -> the module that defines it
CLASSES = {
    "DatasetFingerprintExtractor": "nnunet_cmc.planners.fingerprint",  # nnU-Net's own, but for datasets of ours
    "CMCFingerprintExtractor": "nnunet_cmc.planners.fingerprint",
    "CMCPlanner": "nnunet_cmc.planners.cmc_planner",
    "CMCPlannerNNUNet": "nnunet_cmc.planners.nnunet",
    "CMCPlannerNNUNetResEncL": "nnunet_cmc.planners.nnunet",
    "CMCPlannerNNUNetResEncM": "nnunet_cmc.planners.nnunet",
    "CMCPlannerNNUNetSmall": "nnunet_cmc.planners.nnunet",
    "CMCPlannerTiny": "nnunet_cmc.planners.tiny",
    "CMCPlannerUniversal": "nnunet_cmc.planners.universal",
    "CMCPlannerVNet": "nnunet_cmc.planners.vnet",
    "CMCPreprocessor": "nnunet_cmc.data.preprocessing.preprocessor",
    "CMCReaderWriter": "nnunet_cmc.data.reading.reader_writer",
    "CTPositiveZScoreNormalization": "nnunet_cmc.data.preprocessing.normalization",
    "CTWindowNormalization": "nnunet_cmc.data.preprocessing.normalization",
    "PercentileNormalization": "nnunet_cmc.data.preprocessing.normalization",
    "PositiveZScoreNormalization": "nnunet_cmc.data.preprocessing.normalization",
}
STOCK_NAMES = ("DatasetFingerprintExtractor",)  # that nnU-Net has, too, so that others rely on them
# Names that begin so are made into trainers by nnunet_cmc.trainers.registry; the name itself -> its module.
TRAINERS = {
    "CMCTrainer": "nnunet_cmc.trainers.cmc_trainer",
    **dict.fromkeys(
        (
            "CMLTrainer",
            "CPSTrainer",
            "EFCDTrainer",
            "MMFormerTrainer",
            "MeanTeacherTrainer",
            "PseudoLabelTrainer",
            "SupTrainer",
            "UMMKDTrainer",
            "UMMLTrainer",
        ),
        "nnunet_cmc.trainers.registry",
    ),
    "nnUNetTrainer_cmcbudget": "nnunet_cmc.trainers.budget",
}
