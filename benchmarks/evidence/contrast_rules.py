"""How far intensity alone tells each class, and how rightly a young network labels scans in another contrast.

    python benchmarks/evidence/contrast_rules.py RAW_DATASET [--model FOLDER --preprocessed FOLDER [--fold 0]]

Two figures by which a rule might choose between a teacher with random contrasts and pseudo-labels of whole scans,
without a training of both. *Separability*, of the labelled cases of a raw dataset: |2 AUC - 1| of the intensities in a
class against those up to 10 mm outside of it, 0 if they are alike and 1 if they do not overlap; mean over the cases.
*Rightness*, of a model and the validation cases of its fold: predicted from each modality alone, as it is and in
random contrasts, the percentage of a class that is predicted with more than 0.9 (found), and the percentage of what is
so predicted that is of the class (right). Prints tables in Markdown.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy.ndimage import distance_transform_edt
from scipy.stats import mannwhitneyu
from table import markdown

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import by_modality
from nnunet_cmc.data.format.splits import SPLITS, load_fold
from nnunet_cmc.data.loading.cases import LabeledDataset
from nnunet_cmc.data.loading.gin import Contrasts
from nnunet_cmc.data.preprocessing.normalization import clip_range
from nnunet_cmc.data.reading.raw_dataset import labeled_cases
from nnunet_cmc.inference.trained_model import TrainedModel
from nnunet_cmc.trainers.teacher import Teacher

MARGIN = 10.0  # mm, of the surroundings
DRAWS = 4  # random contrasts of each scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder of a raw dataset")
    parser.add_argument("--model", type=Path, help="folder TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("--preprocessed", type=Path, help="folder of the preprocessed dataset")
    parser.add_argument("--fold", type=int, default=0, help="%(default)s")
    args = parser.parse_args()
    if (args.model is None) != (args.preprocessed is None):
        parser.error("--model and --preprocessed need each other: give both or none.")
    description = DatasetDescription.read(args.dataset / "dataset.json")
    found = {"separability": separability(args.dataset, description)}
    if args.model:
        found |= rightness(args.model, args.preprocessed, args.fold)
    classes = [name for name, value in description.labels.items() if value]
    names = [f"{modality}, {name}" for modality in description.modalities for name in classes]
    rows = [[figure, *(f"{np.nanmean(each):.2f}" for each in values.values())] for figure, values in found.items()]
    print(markdown(["", *names], rows))


Values = dict[tuple[int, int], list[float]]  # channel, class -> one of each case


def separability(dataset: Path, description: DatasetDescription) -> Values:
    """Compute |2 AUC - 1| of each class against its surroundings in each modality and case."""
    channels = range(len(description.modalities))
    found: Values = {(channel, value): [] for channel in channels for value in description.label_values() if value}
    for case, files in labeled_cases(dataset, description).items():
        label = sitk.ReadImage(str(files["label"]))
        classes, spacing = sitk.GetArrayFromImage(label), label.GetSpacing()[::-1]
        for modality, file in by_modality(files["images"], case, description).items():
            scan = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            for value in set(np.unique(classes).tolist()) - {0}:
                inside = classes == value
                distance = distance_transform_edt(~inside, sampling=spacing)
                around = ~inside & (distance <= MARGIN) & (scan != 0)
                auc = mannwhitneyu(scan[inside], scan[around]).statistic / (inside.sum() * around.sum())
                found[description.modalities.index(modality), value].append(abs(2 * auc - 1))
    return found


def rightness(model: Path, preprocessed: Path, fold: int) -> dict[str, Values]:
    """Compute what is found and what is right, in percent, as scans are and in random contrasts."""
    trained = TrainedModel(model, fold, "checkpoint_final.pth")
    predictor = trained.predictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    manager, configuration = predictor.plans_manager, predictor.configuration_manager
    intensities = manager.foreground_intensity_properties_per_channel
    val = load_fold(preprocessed / SPLITS, fold).val
    cases = LabeledDataset(str(preprocessed / configuration.data_identifier), list(val))
    found: dict[str, Values] = defaultdict(lambda: defaultdict(list))
    for case in val:
        data, label, _, _ = cases.load_case(case)
        data, label = torch.from_numpy(data[:]).float(), torch.from_numpy(label[0]).long()
        for channel, scheme in enumerate(configuration.normalization_schemes):
            if not data[channel].any():
                continue
            alone = torch.zeros_like(data)[None]
            alone[0, channel] = data[channel]
            clip = [clip_range(scheme, intensities[str(channel)])]
            contrasts = [Contrasts(seed, [0], [channel], clip).show(alone) for seed in range(DRAWS)]
            for view, shown in (("as it is", [alone]), ("in random contrasts", contrasts)):
                for each in shown:
                    probabilities = predictor.predict_logits_from_preprocessed_data(each[0]).float().softmax(0)
                    for value in range(1, len(probabilities)):
                        sure, there = probabilities[value] > Teacher().confidence, label == value
                        hit = (sure & there).sum()
                        for figure, of in (("found", there), ("right", sure)):
                            share = 100 * (hit / of.sum()).item()  # NaN, left out, where there is nothing
                            found[f"{figure}, {view} (%)"][channel, value].append(share)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
