"""Train and predict through Python, on generated CT and MR scans; minutes on a CPU.

    python examples/train_and_predict.py FOLDER [TRAINER]

FOLDER is a new one. TRAINER is CMCTrainer_demo (400 iterations); for scans of your own take CMCTrainer, on a GPU.
"""

import os
import sys
from pathlib import Path


def main(folder: Path, trainer: str = "CMCTrainer_demo") -> Path:
    """Return the folder of the trained model."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)  # nnU-Net reads them when it is imported, which is below

    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.run.run_training import run_training

    from nnunet_cmc import DatasetDescription, Predictor, evaluate_folder
    from nnunet_cmc.data.format.splits import make_splits, write_splits
    from nnunet_cmc.dataset_conversion.folders import convert_folders
    from nnunet_cmc.dataset_conversion.phantom import generate

    # 1. Convert. For scans of your own: images={"CT": "ct/", "MR": "mr/"}, labels="labels/", classes={"liver": 1}, ...
    scans = generate(folder / "scans", labeled=3, unlabeled=2, test=1)
    dataset = convert_folders(501, "Phantoms", **scans)

    # 2. Split: fold 0 keeps every label and validates on a third of the labelled subjects.
    description = DatasetDescription.read(dataset / "dataset.json")
    labeled = [file.name.removesuffix(".nii.gz") for file in sorted((dataset / "labelsTr").iterdir())]
    write_splits(dataset.name, make_splits(description, labeled, labeled=[1.0], val=0.34, seed=0))

    # 3. Plan and preprocess. With a GPU take CMCPlannerNNUNet.
    extract_fingerprints([501], "CMCFingerprintExtractor", num_processes=1)
    plans = plan_experiments([501], "CMCPlannerNNUNetSmall")
    preprocess([501], plans, ["3d_fullres"], num_processes=[1])

    # 4. Train.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run_training("501", "3d_fullres", 0, trainer, plans, device=device)

    # 5. Predict the test subject and evaluate.
    model = folder / "results" / dataset.name / f"{trainer}__{plans}__3d_fullres"
    Predictor(model).predict_folder(dataset / "imagesTs", folder / "predictions")
    evaluation = evaluate_folder(dataset / "labelsTs", folder / "predictions", description)
    for name in evaluation.classes:
        print(f"Dice of {name}: {evaluation.statistic(name, 'Dice').mean:.3f}")
    print(f"Model: {model}")
    return model


if __name__ == "__main__":  # nnU-Net's workers import this file
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:])
