"""Predict in a service: one model in memory, requests of several threads, each with the modalities that it has.

    python examples/predict_in_a_service.py MODEL

MODEL is the folder TRAINER__PLANS__CONFIGURATION of a model of CT and MR, such as that of train_and_predict.py.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nnunet_cmc import Predictor, compute_metrics
from nnunet_cmc.dataset_conversion.phantom import CLASSES, phantom

SPACING = (2.5, 2.5, 2.5)  # mm along D, H, W


def main(model: str) -> dict[str, np.ndarray]:
    """Return the label map of each request."""
    predictor = Predictor(model)  # once; nothing in the model's files is executed
    print(f"The model has {', '.join(predictor.modalities)}.")

    # A predictor's arrays rise to the head, the front and the right; phantoms to the head, the back and the left.
    reference, scans = phantom(np.random.default_rng(7), spacing=SPACING)
    reference = reference[:, ::-1, ::-1]
    scans = {modality: volume[:, ::-1, ::-1] for modality, volume in scans.items()}

    # What a modality lacks is left out of the request: no zeros, no file.
    requests = {"CT and MR": scans, "CT alone": {"CT": scans["CT"]}, "MR alone": {"MR": scans["MR"]}}

    def answer(volumes: dict[str, np.ndarray]) -> np.ndarray:
        return predictor.predict(volumes, SPACING)  # (D, H, W) uint8, on the grid of the volumes

    with ThreadPoolExecutor(max_workers=3) as threads:
        answers = dict(zip(requests, threads.map(answer, requests.values()), strict=True))
    for request, labels in answers.items():
        dice = [compute_metrics(reference == v, labels == v, SPACING)["Dice"] for v in CLASSES.values()]
        print(f"{request}:", ", ".join(f"{name} {value:.3f}" for name, value in zip(CLASSES, dice, strict=True)))

    # A bad request is a ValueError that says what is wrong, and the predictor goes on.
    try:
        answer({"PET": scans["CT"]})
    except ValueError as error:
        print(f"Refused: {error}")
    return answers


if __name__ == "__main__":
    main(sys.argv[1])
