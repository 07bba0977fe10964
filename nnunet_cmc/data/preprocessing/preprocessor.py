"""nnU-Net's preprocessing for cases that lack modalities, with or without a label."""

import os
import shutil
from multiprocessing import current_process
from os.path import join

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice, get_bbox_from_mask
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_cmc.data.format.dataset_json import DatasetDescription, read_dataset_json
from nnunet_cmc.data.format.plans_json import REMEDY, planned_configuration, read_plans
from nnunet_cmc.data.format.preprocessed import ALMOST_ZERO, UNFINISHED, unlabeled_folder
from nnunet_cmc.data.format.scan_folder import cases_of, visible_files
from nnunet_cmc.data.format.splits import SPLITS
from nnunet_cmc.data.preprocessing.body import body_box
from nnunet_cmc.data.reading.raw_case import check_case, read_case, read_label, require_declared, shown_channels
from nnunet_cmc.data.reading.raw_dataset import check_dataset, raw_description, remove_byte_order_mark
from nnunet_cmc.utils.files import all_written, atomic_write
from nnunet_cmc.utils.formatting import millimetres
from nnunet_cmc.utils.parallel import end_with_parent, run_parallel

COPIES = ("dataset.json", SPLITS)  # of files of the raw dataset, made by a planner


class CMCPreprocessor(DefaultPreprocessor):
    """Crop, normalise and resample as nnU-Net does, independent of any label.

    An absent channel is exactly zero in every voxel, a present one in none. The properties of a case gain

    * ``present_channels``: list of int, the channels that are not all zero,
    * ``body_box``: ``[[lo, hi), ...]`` along D, H, W in voxels of the preprocessed array (float).
    """

    def run_case(self, image_files, seg_file, plans_manager, configuration_manager, dataset_json):
        """Preprocess a case given as files ``_000N`` of any of its channels, in any order.

        Returns data ``(M, D, H, W)`` float32, seg ``(1, D, H, W)`` int (-1 outside of the image) and properties.
        ValueError: see :func:`read_case` and :func:`read_label`; or the plans name a reader with other axes.
        """
        if current_process().daemon:  # nnU-Net's workers: of preprocessing, which write, and of prediction, which wait
            end_with_parent()
        dataset_json = read_dataset_json(dataset_json) if isinstance(dataset_json, str) else dataset_json
        description = DatasetDescription.from_dict(dataset_json)
        reader = plans_manager.image_reader_writer_class
        if not issubclass(reader, SimpleITKIOWithReorient):  # which would write predictions on other axes
            raise ValueError(
                f"The plans {plans_manager.plans_name} have {reader.__name__} as image_reader_writer, but nnunet_cmc "
                f"reads with CMCReaderWriter: {REMEDY}."
            )
        data, properties = read_case(image_files, description, seg_file)
        seg = None if seg_file is None else read_label(seg_file, description)
        try:
            return self.run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)
        except ValueError as error:  # which knows no case
            case, _ = check_case(image_files, description)
            raise ValueError(f"Case {case}: {error}") from error

    def run_case_npy(self, data, seg, properties, plans_manager, configuration_manager, dataset_json):
        """Preprocess arrays ``data (M, D, H, W)`` and ``seg (1, D, H, W)``; a channel that is all zero is absent.

        ValueError: the number of channels is not the dataset's, or the non-zero region is smaller than a voxel.
        """
        description = DatasetDescription.from_dict(dataset_json)
        names = description.modalities
        if len(data) != len(names):
            raise ValueError(
                f"The image has {len(data)} channel(s), but the dataset has {len(names)} ({', '.join(names)}): "
                "give every channel, zeros for an absent one."
            )
        present = shown_channels(data)
        if not present:
            raise ValueError("The image is empty: all its voxels are zero; give at least one modality.")
        raw = data.transpose(0, *(axis + 1 for axis in plans_manager.transpose_forward))
        self._require_a_voxel(raw, properties, plans_manager, configuration_manager)
        data, seg, properties = super().run_case_npy(
            data, seg, properties, plans_manager, configuration_manager, dataset_json
        )
        raw = raw[(slice(None), *bounding_box_to_slice(properties["bbox_used_for_cropping"]))]
        scale = np.divide(data.shape[1:], raw.shape[1:])
        properties["present_channels"] = present
        properties["body_box"] = (body_box(raw, description.normalization_names) * scale[:, None]).tolist()
        for channel in present:
            data[channel][data[channel] == 0] = ALMOST_ZERO
        return data, seg, properties

    def run_case_save(self, output_filename_truncated, *arguments):
        """Preprocess a case and save it as nnU-Net does. OSError if it cannot be written."""
        written = output_filename_truncated + ".b2nd"
        try:
            super().run_case_save(output_filename_truncated, *arguments)
        except RuntimeError as error:
            if not os.path.exists(written):  # it was not the writing that failed
                raise
            with all_written(written, RuntimeError):  # blosc2 does not say why
                raise error

    @staticmethod
    def _require_a_voxel(raw, properties, plans_manager, configuration_manager):
        shape = [stop - start for start, stop in get_bbox_from_mask(raw.any(0))]  # what nnU-Net crops to
        spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
        target = configuration_manager.spacing
        if 0 in compute_new_shape(shape, spacing, target):
            extent = (side * step for side, step in zip(shape, spacing, strict=True))
            raise ValueError(
                f"The image is {millimetres(extent, digits=6)} large where it is not zero, less than a voxel of the "
                f"planned spacing {millimetres(target, digits=6)}: leave it out, or correct the spacing in its header."
            )

    def _normalize(self, data, seg, configuration_manager, foreground_intensity_properties_per_channel):
        absent = np.setdiff1d(range(len(data)), shown_channels(data))
        if any(configuration_manager.use_mask_for_norm):
            # stock marks as outside what is zero in the image *and* in the label
            seg = create_nonzero_mask(data)[None].astype(np.int8) - 1
        data = super()._normalize(data, seg, configuration_manager, foreground_intensity_properties_per_channel)
        data[absent] = 0
        return data

    def run(self, dataset_name_or_id, configuration_name, plans_identifier, num_processes):
        """Preprocess the labelled cases as nnU-Net does, then those of ``imagesUn`` into :func:`unlabeled_folder`.

        ValueError: a case cannot be preprocessed; headers are checked before any work.
        """
        raw_description(dataset_name_or_id)
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
        raw, preprocessed = join(nnUNet_raw, name), join(nnUNet_preprocessed, name)
        _add_missing_copies(raw, preprocessed)
        plans_file = join(preprocessed, plans_identifier + ".json")
        for read_by_nnunet in (plans_file, *(join(preprocessed, name) for name in COPIES)):
            remove_byte_order_mark(read_by_nnunet)
        dataset_json = read_dataset_json(file := join(preprocessed, "dataset.json"))
        description = DatasetDescription.from_dict(dataset_json, file)
        check_dataset(raw, description)
        plans = read_plans(plans_file)
        planned_configuration(plans, configuration_name)
        plans_manager = PlansManager(plans)
        configuration_manager = plans_manager.get_configuration(configuration_name)
        labeled = join(preprocessed, configuration_manager.data_identifier)
        unlabeled = unlabeled_folder(labeled)
        unfinished = unlabeled + UNFINISHED
        _remove_partial_copies(raw, preprocessed)
        os.makedirs(unfinished, exist_ok=True)  # while it is there, to the end, trainers refuse what there is
        for left in os.listdir(unfinished):
            os.remove(join(unfinished, left))
        try:
            shutil.rmtree(unlabeled, ignore_errors=True)
            super().run(name, configuration_name, plans_identifier, num_processes)
            cases = cases_of(join(raw, "imagesUn"), description).items()
            managers = (plans_manager, configuration_manager, dataset_json)
            if arguments := [(join(unfinished, case), images, *managers) for case, images in cases]:
                what = "Preprocessing unlabelled"
                run_parallel(self._save_unlabeled, arguments, num_processes, what, self.show_progress_bar)
                os.rename(unfinished, unlabeled)
            else:
                os.rmdir(unfinished)
        except BaseException:
            for folder in (labeled, unfinished):  # some of the cases would look like all of them
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _save_unlabeled(self, path, image_files, plans_manager, configuration_manager, dataset_json):
        self.run_case_save(path, image_files, None, plans_manager, configuration_manager, dataset_json)
        present = load_pickle(path + ".pkl")["present_channels"]
        require_declared(present, DatasetDescription.from_dict(dataset_json), os.path.basename(path))


def _add_missing_copies(raw: str, preprocessed: str) -> None:
    """Copy files that a planner copies, if plans were moved from another dataset or machine without them."""
    for name in COPIES:
        source, copy = join(raw, name), join(preprocessed, name)
        if os.path.isfile(source) and os.path.isdir(preprocessed) and not os.path.exists(copy):
            with atomic_write(copy) as file:
                shutil.copyfile(source, file)
            print(f"Copied {source} to {preprocessed}, where there was none.")


def _remove_partial_copies(raw: str, preprocessed: str) -> None:
    """Remove truncated copies of a killed run in ``gt_segmentations``, which nnU-Net would not copy again."""
    copies = join(preprocessed, "gt_segmentations")
    for copy in visible_files(copies):
        source = join(raw, "labelsTr", os.path.basename(copy))
        if os.path.isfile(source) and os.path.getsize(source) != os.path.getsize(copy):
            os.remove(copy)
