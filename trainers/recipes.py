"""The table of recipes: each name that ``nnUNetv2_train -tr`` takes, before any suffix."""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import FuseOrSplit
from nnunet_cmc.data.loading.views import FusePairs, RandomizeContrast, StrongView
from nnunet_cmc.losses.schedules import ALPHA, BETA, GAMMA, SMALL_ALPHA, SMALL_BETA
from nnunet_cmc.networks.changes import (
    FuseByMean,
    FuseSkips,
    SeparateModalities,
    ShareEncoder,
    ShowOnly,
    SuperviseDeep,
    TrainAdapters,
)
from nnunet_cmc.trainers.base_recipes import SHARED, SUPERVISED
from nnunet_cmc.trainers.compared import COMPARED
from nnunet_cmc.trainers.optimizers import AdamW, ConstantAdam
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import CAC, CSC, Pseudo, Term
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

WITH_CSC, WITH_CAC = Term(CSC, ALPHA), Term(CAC, BETA)
SMALL_CSC, SMALL_CAC = Term(CSC, SMALL_ALPHA), Term(CAC, SMALL_BETA)

RECOMMENDED = replace(
    SHARED,
    purpose="recommended: one network for all modalities, trained on labels, CSC and CAC, and in the last three "
    "tenths of the training also on pseudo-labels of whole scans",
    terms=(SUPERVISED, SMALL_CSC, SMALL_CAC, Term(Pseudo)),
    whole_scan_labels=WholeScanLabels(),
)
CONTRAST_TEACHER = replace(
    SHARED,
    purpose="CMCTrainer, but with a mean teacher, which pseudo-labels patches from a fifth of the training on; the "
    "student gets them with random contrast",
    terms=(SUPERVISED, SMALL_CSC, SMALL_CAC, Term(Pseudo, GAMMA)),
    views=(StrongView(), RandomizeContrast()),
    teacher=Teacher(),
)
SEPARATE = SeparateModalities()
PAPER = Recipe(
    "the paper's method with contrastive denominators (the printed losses do not align features)",
    (SUPERVISED, WITH_CSC, WITH_CAC),
    (SEPARATE,),
    batch_dice=True,
)

RECIPES: dict[str, Recipe] = {
    "CMCTrainer": RECOMMENDED,
    "CMCTrainer_contrastTeacher": CONTRAST_TEACHER,
    "CMCTrainer_teacherOnly": replace(
        CONTRAST_TEACHER,
        purpose="CMCTrainer_contrastTeacher without CSC and CAC",
        terms=(SUPERVISED, Term(Pseudo, GAMMA)),
    ),
    "CMCTrainer_noCSC": replace(
        RECOMMENDED, purpose="CMCTrainer without CSC", terms=(SUPERVISED, SMALL_CAC, Term(Pseudo))
    ),
    "CMCTrainer_noCAC": replace(
        RECOMMENDED, purpose="CMCTrainer without CAC", terms=(SUPERVISED, SMALL_CSC, Term(Pseudo))
    ),
    "CMCTrainer_wholeScanLabelsOnly": replace(
        RECOMMENDED, purpose="CMCTrainer without CSC and CAC", terms=(SUPERVISED, Term(Pseudo))
    ),
    "CMCTrainer_supervised": SHARED,
    "CMCTrainer_separate": replace(
        SHARED,
        purpose="from labelled scans alone, with an encoder and a decoder for each modality and fused skips",
        network=(SEPARATE, SuperviseDeep(), FuseSkips()),
    ),
    "CMCTrainerPaper": PAPER,
    "CMCTrainerPaper_noCAC": replace(
        PAPER, purpose="ablation (Table 2), + CMC strategy: without CAC", terms=(SUPERVISED, WITH_CSC)
    ),
    "CMCTrainerPaper_encoders": replace(
        PAPER,
        purpose="ablation (Table 2), + modality-specific encoders: supervised, mean fusion",
        terms=(SUPERVISED,),
        network=(SEPARATE, FuseByMean()),
    ),
    "CMCTrainerPaper_baseline": replace(
        PAPER,
        purpose="ablation (Table 2), baseline: supervised, mean fusion, one encoder for all modalities",
        terms=(SUPERVISED,),
        network=(SEPARATE, FuseByMean(), ShareEncoder()),
    ),
    "CMCTrainerPaper_noCSC": replace(PAPER, purpose="the paper's without CSC", terms=(SUPERVISED, WITH_CAC)),
    "CMCTrainerPaper_noMIA": replace(
        PAPER, purpose="the paper's with mean fusion in place of MIA", network=(SEPARATE, FuseByMean())
    ),
    "CMCTrainerPaper_noModalityDropout": replace(
        PAPER, purpose="the paper's without modality dropout: labelled scans are always fused", fusion=FuseOrSplit(0.0)
    ),
    **{
        f"CMCTrainerPaper_onlyModality{m}": replace(
            PAPER,
            purpose=f"the paper's network on the modality of channel {m} alone, supervised",
            terms=(SUPERVISED,),
            network=(SEPARATE, ShowOnly(m)),
        )
        for m in range(4)  # as many as brain tumours are commonly scanned in
    },
    "CMCTrainerPaper_adapters": replace(
        PAPER,
        purpose="the paper's for pretrained transformers, frozen except for adapters and norms",
        network=(SEPARATE, TrainAdapters()),
        optimizer=AdamW(fine_tuning_rate=None),
    ),
    "CMCTrainerAsPrinted": replace(
        PAPER,
        purpose="the paper exactly as printed, for reference: losses that do not align features, Adam at 1e-5, no "
        "modality dropout, equal weights of modalities, scans of two patients fused voxel by voxel",
        terms=(SUPERVISED, Term(CSC, ALPHA, "printed"), Term(CAC, BETA, "printed")),
        views=(FusePairs(),),
        fusion=FuseOrSplit(0.0),
        optimizer=ConstantAdam(),
        calibrated=False,
    ),
    **COMPARED,
}
