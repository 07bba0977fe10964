"""Prediction in Python: ``nnunet_cmc.Predictor`` keeps a trained model in memory, for any number of threads."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Lock

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from tqdm import tqdm

from nnunet_cmc.data.format.checkpoint_names import FINAL
from nnunet_cmc.data.format.scan_folder import by_case, case_of, require_one_case, scans_of
from nnunet_cmc.data.reading.reader_writer import CMCReaderWriter
from nnunet_cmc.data.reading.voxels import count_not_finite
from nnunet_cmc.inference.trained_model import TrainedModel
from nnunet_cmc.nnunet_hook.version import require_supported_nnunet
from nnunet_cmc.utils.files import require_writable, write_json

CASES_IN_MEMORY = 2  # one in the network, one in preprocessing or export


class Predictor:
    """Predict as ``nnUNetv2_predict`` does, but load the model once, and take arrays as well as files.

    Any number of threads may use one predictor. The network sees one case at a time, and two cases are in memory;
    further calls wait. Nothing in the checkpoints is executed.

    Args:
        model: folder ``TRAINER__PLANS__CONFIGURATION`` of a trained model, with ``fold_X`` in it.
        folds: whose networks are averaged; all that have the checkpoint, if None.
        device: of torch; the first GPU or, without one, the CPU, if None.
        mirroring: predict the mirrored image, too, where the training allows it.
        step_size: of the sliding window, as a fraction of the patch.
        checkpoint: name of the file in each ``fold_X``.

    Raises:
        ValueError: the folder holds no model of ours, or its files do not fit together.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        folds: Sequence[int | str] | int | str | None = None,
        *,
        device: str | torch.device | None = None,
        mirroring: bool = True,
        step_size: float = 0.5,
        checkpoint: str = FINAL,
    ):
        require_supported_nnunet()
        trained = TrainedModel(model, folds, checkpoint)
        self.dataset_json, self.plans = trained.dataset_json, trained.plans
        self.modalities = list(trained.description.modalities)
        self._file_ending = trained.description.file_ending
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        options = {"tile_step_size": step_size, "use_mirroring": mirroring, "device": device, "allow_tqdm": False}
        self._predictor = trained.predictor(perform_everything_on_device=device.type == "cuda", **options)
        self._preprocessor = self._predictor.configuration_manager.preprocessor_class(verbose=False)
        self._writer = CMCReaderWriter()  # whichever the plans name
        self._threads = torch.get_num_threads()
        self._network_lock, self._memory_slots = Lock(), BoundedSemaphore(CASES_IN_MEMORY)

    def predict(self, volumes: Mapping[str, np.ndarray], spacing: Sequence[float]) -> np.ndarray:
        """Predict the label map ``(D, H, W)`` uint8 of a case given as arrays.

        Args:
            volumes: modality -> ``(D, H, W)``, any of the model's, all on one grid. Canonical axes, as our plans have
                them: D rises towards the head, H to the front, W to the patient's right. CT in HU.
            spacing: mm along D, H, W.

        Raises:
            ValueError: an unknown modality or none, unlike shapes, a voxel that is NaN or infinite, or a bad spacing.
        """
        if len(spacing) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing):
            raise ValueError(f"The spacing must be three positive numbers (mm along D, H, W), but is {list(spacing)}.")
        properties = {"spacing": [float(step) for step in spacing]}
        with self._memory_slots:
            arguments = self._stacked(volumes), None, properties, *self._managers, self.dataset_json
            return self._predict(None, *self._preprocessor.run_case_npy(*arguments))[0]

    def predict_files(
        self, files: str | os.PathLike | Sequence[str | os.PathLike], output: str | os.PathLike | None = None
    ) -> sitk.Image:
        """Predict the label map of a case given as files ``CASE_000N`` (N is the channel), on the grid of these files.

        Args:
            files: of any of the modalities, in any order; one path for a case of one file.
            output: file to write the label map to, too, atomically.

        Raises:
            ValueError: a file is unreadable, on another grid, not finite or of a channel that the model has not; all
                voxels are zero; the files are of several cases; ``output`` has no folder or no known ending.
            OSError: ``output`` cannot be written.
        """
        if output is not None:
            _require_file(Path(output))
        with self._memory_slots:
            listed = [files] if isinstance(files, str | os.PathLike) else files
            paths = require_one_case(map(str, listed), self._file_ending)
            preprocessed = self._preprocessor.run_case(paths, None, *self._managers, self.dataset_json)
            labels, properties = self._predict(case_of(paths[0], self._file_ending), *preprocessed)
            with TemporaryDirectory() as temporary:
                target = output or Path(temporary, "labels" + self._file_ending)
                return self._writer.write_seg(labels, str(target), properties)

    def predict_folder(
        self, images: str | os.PathLike, output: str | os.PathLike, overwrite: bool = True
    ) -> dict[str, str]:
        """Predict every case of a folder; one that fails does not stop the others.

        Args:
            images: folder of files ``CASE_000N``.
            output: folder for ``CASE`` label maps; made if it is not there.
            overwrite: whether to predict cases again that ``output`` has; its files are always complete.

        Returns:
            for each case that failed why, in one sentence; printed at the end, too.

        Raises:
            ValueError: there is no folder ``images``, no volume in it, or a file that looks like one and is none that
                this model reads.
        """
        ending = self._file_ending
        cases = by_case(scans_of(images, ending), ending)
        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "dataset.json", self.dataset_json)  # as nnUNetv2_predict leaves them, for what comes after
        write_json(output / "plans.json", self.plans)
        waiting = [case for case in cases if overwrite or not (output / (case + ending)).is_file()]

        def problem(case: str) -> str | None:
            try:
                self.predict_files(cases[case], output / (case + ending))
            except Exception as error:
                return " ".join(str(error).split()) or type(error).__name__
            return None

        with ThreadPoolExecutor(CASES_IN_MEMORY) as pool:
            problems = list(tqdm(pool.map(problem, waiting), "Predicting", len(waiting), unit="case"))
        failures = {case: found for case, found in zip(waiting, problems, strict=True) if found}
        print(f"Predicted {len(waiting) - len(failures)} of {len(waiting)} cases into {output}.")
        for case, reason in failures.items():
            print(f"Not predicted: {case}: {reason}")
        return failures

    @property
    def _managers(self) -> tuple:
        return self._predictor.plans_manager, self._predictor.configuration_manager

    def _predict(self, case: str | None, data: np.ndarray, _: np.ndarray, properties: dict) -> tuple[np.ndarray, dict]:
        """Predict the label map ``(D, H, W)`` on the input's grid of a preprocessed case, and its properties."""
        with self._network_lock:  # nnU-Net loads each fold's weights into the one network
            self._predictor.cases = [case] if case else []
            logits = self._predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, *self._managers, self._predictor.label_manager, properties, num_threads_torch=self._threads
        )
        return labels, properties

    def _stacked(self, volumes: Mapping[str, np.ndarray]) -> np.ndarray:
        arrays = {name: np.asarray(volume) for name, volume in volumes.items()}
        if unknown := sorted(set(arrays) - set(self.modalities)):
            raise ValueError(f"There is no modality {unknown[0]}; the model has {', '.join(self.modalities)}.")
        if not arrays:
            raise ValueError(f"There is no volume: give one of {', '.join(self.modalities)}, or more.")
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 3:
            raise ValueError(f"The volumes must all be (D, H, W), of one shape, but are {sorted(shapes)}.")
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf" or count_not_finite(array):
                raise ValueError(f"The volume of {name} ({array.dtype}) must hold finite numbers: replace the others.")
        data = np.zeros((len(self.modalities), *shapes.pop()), np.float32)
        for name, array in arrays.items():
            data[self.modalities.index(name)] = array
        return data


def _require_file(output: Path) -> None:
    """Refuse an output file that cannot be written, before any work."""
    endings = (*CMCReaderWriter.supported_file_endings, ".nii")
    if not output.name.endswith(endings):
        raise ValueError(f"{output} has no ending of an image: name a file that ends in one of {', '.join(endings)}.")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {output.parent} for {output.name}: make it, or name another one.")
    require_writable(output.parent)
