"""What we override of nnU-Net 2.8, and its private names that we use. A failure says what a new nnunetv2 has broken."""

import ast
import inspect
from functools import cache

import pytest
from nnunet_contracts import (
    TRAINER,
    VERSION,
    all_names,
    find,
    is_private,
    is_self,
    is_theirs,
    nodes,
    our_subclasses,
    parameters,
    path_of,
)

# their class -> what we override of it, and its private names that we use -> its parameters; None for an attribute
TAKEN: dict[str, dict[str, str | None]] = {
    "batchgenerators.dataloading.data_loader:SlimDataLoaderBase": {"set_thread_id": "thread_id"},
    "batchgenerators.dataloading.nondet_multi_threaded_augmenter:NonDetMultiThreadedAugmenter": {
        "_finish": "timeout force",
    },
    "batchgeneratorsv2.transforms.base.basic_transform:BasicTransform": {
        "__init__": "",
        "get_parameters": "data_dict",
        "_apply_to_image": "img params",
        "_apply_to_segmentation": "segmentation params",
        "_apply_to_regr_target": "regression_target params",
    },
    "batchgeneratorsv2.transforms.spatial.spatial:SpatialTransform": {
        "get_parameters": "data_dict",
        "_apply_to_image": "img params",
        "_apply_to_segmentation": "segmentation params",
    },
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor:DatasetFingerprintExtractor": {
        "__init__": "dataset_name_or_id num_processes verbose",
        "run": "overwrite_existing",
    },
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner:ExperimentPlanner": {
        "__init__": "dataset_name_or_id gpu_memory_target_in_gb preprocessor_name plans_name overwrite_target_spacing "
        "suppress_transpose",
        "determine_reader_writer": "",
        "determine_transpose": "",
        "determine_normalization_scheme_and_whether_mask_is_used_for_norm": "",
        "determine_fullres_target_spacing": "",
        "generate_data_identifier": "configuration_name",
        "get_plans_for_configuration": "spacing median_shape data_identifier approximate_n_voxels_dataset _cache",
        "static_estimate_VRAM_usage": "patch_size input_channels output_channels arch_class_name arch_kwargs "
        "arch_kwargs_req_import",
        "plan_experiment": "",
        "save_plans": "plans",
        "UNet_base_num_features": None,
        "UNet_max_features_3d": None,
        "UNet_reference_val_3d": None,
        "UNet_reference_val_corresp_GB": None,
        "UNet_reference_val_corresp_bs_3d": None,
        "UNet_vram_target_GB": None,
    },
    "nnunetv2.imageio.simpleitk_reader_writer:SimpleITKIOWithReorient": {
        "read_images": "image_fnames orientation",
        "write_seg": "seg output_fname properties",
    },
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor": {
        "_manage_input_and_output_lists": "list_of_lists_or_source_folder "
        "output_folder_or_list_of_truncated_output_files folder_with_segs_from_prev_stage overwrite part_id num_parts "
        "save_probabilities",
        "predict_logits_from_preprocessed_data": "data",
        "_internal_predict_sliding_window_return_logits": "data slicers do_on_device",
        "_internal_maybe_mirror_and_predict": "x",
    },
    "nnunetv2.preprocessing.normalization.default_normalization_schemes:ImageNormalization": {
        "leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true": None,
        "run": "image seg",
    },
    "nnunetv2.preprocessing.preprocessors.default_preprocessor:DefaultPreprocessor": {
        "run_case": "image_files seg_file plans_manager configuration_manager dataset_json",
        "run_case_npy": "data seg properties plans_manager configuration_manager dataset_json",
        "run_case_save": "output_filename_truncated image_files seg_file plans_manager configuration_manager "
        "dataset_json",
        "_normalize": "data seg configuration_manager foreground_intensity_properties_per_channel",
        "run": "dataset_name_or_id configuration_name plans_identifier num_processes",
    },
    "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader": {
        "__init__": "data batch_size patch_size final_patch_size label_manager oversample_foreground_percent "
        "sampling_probabilities pad_sides probabilistic_oversampling transforms",
        "generate_train_batch": "",
        "get_bbox": "data_shape force_fg class_locations overwrite_class verbose",
        "get_do_oversample": None,
        "need_to_pad": None,
    },
    "nnunetv2.training.dataloading.nnunet_dataset:nnUNetDatasetBlosc2": {
        "__init__": "folder identifiers folder_with_segs_from_previous_stage",
        "load_case": "identifier",
        "get_identifiers": "folder",
    },
    "nnunetv2.training.logging.nnunet_logger:LocalLogger": {
        "__init__": "verbose",
        "log": "key value epoch",
        "plot_progress_png": "output_folder",
    },
    "nnunetv2.training.lr_scheduler.polylr:PolyLRScheduler": {
        "__init__": "optimizer initial_lr max_steps exponent current_step",
        "step": "current_step",
        "_last_lr": None,
    },
    TRAINER: {
        "__init__": "plans configuration fold dataset_json device",
        "_best_ema": None,
        "_build_loss": "",
        "_do_i_compile": "",
        "_set_batch_size_and_oversample": "",
        "build_network_architecture": "plans_manager configuration_manager num_input_channels num_output_channels "
        "enable_deep_supervision",
        "configure_optimizers": "",
        "do_split": "",
        "get_dataloaders": "",
        "initialize": "",
        "load_checkpoint": "filename_or_checkpoint",
        "on_epoch_end": "",
        "on_epoch_start": "",
        "on_train_epoch_end": "train_outputs",
        "on_train_epoch_start": "",
        "on_train_start": "",
        "on_validation_epoch_end": "val_outputs",
        "perform_actual_validation": "save_probabilities",
        "print_plans": "",
        "print_to_log_file": "args also_print_to_console add_timestamp",
        "run_training": "",
        "save_checkpoint": "filename",
        "set_deep_supervision_enabled": "enabled",
        "train_step": "batch",
        "validation_step": "batch",
    },
}
TAKEN_NAMES = [(path, name) for path, names in TAKEN.items() for name in names]
# constructed by ourselves, with arguments of our own; all others by nnU-Net
CONSTRUCTED_BY_US = (*("BasicTransform", "nnUNetDataLoader", "nnUNetDatasetBlosc2", "LocalLogger", "PolyLRScheduler"),)
# private names that we use of other libraries
OF_OTHERS = {
    "_SubParsersAction",
    "_actions",
    "_asdict",
    "_exit",
    "_fields",
    "_foreach_lerp_",
    "_orig_mod",  # of a network that torch compiled
    "_functorch",
    "_replace",
    "_unsafe_view",
}


@cache
def overrides() -> list[tuple[type, str, type]]:
    """Return what both we and they define: our class, the name, their class."""
    found = []
    for cls, _, _ in our_subclasses():
        for name in vars(cls):
            theirs = (base for base in cls.__mro__[1:] if is_theirs(base.__module__) and name in vars(base))
            if (name in ("__init__", "__call__") or not name.startswith("__")) and (base := next(theirs, None)):
                found.append((cls, name, base))
    return [override for override in found if override[1] != "_abc_impl"]


def named_parameters(function) -> list:
    """Return the parameters as far as they are named: ``...`` stands for ``*args`` and all that follows."""
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return parameters(function)
    return [*parameters(function)[: kinds.index(inspect.Parameter.VAR_POSITIONAL) - 1], ...]


@pytest.mark.parametrize(("path", "name"), TAKEN_NAMES, ids=[f"{p.partition(':')[2]}.{n}" for p, n in TAKEN_NAMES])
def test_what_we_override_and_use_is_as_we_know_it(path, name):
    cls = find(path)
    assert name in all_names(cls), f"{path}.{name} is gone from nnunetv2 {VERSION}, or from what it requires"
    if (expected := TAKEN[path][name]) is not None:
        found = parameters(getattr(cls, name))
        assert found == expected.split(), f"{path}.{name} takes {found} in nnunetv2 {VERSION}, not {expected.split()}"


def test_every_override_is_in_the_table_and_takes_the_same():
    assert len(overrides()) > 40
    for cls, name, base in overrides():
        assert name in TAKEN.get(path_of(base), {}), f"{path_of(cls)} overrides {path_of(base)}.{name}: add it to TAKEN"
        if callable(getattr(base, name)) and not (name == "__init__" and base.__name__ in CONSTRUCTED_BY_US):
            theirs, ours = parameters(getattr(base, name)), named_parameters(getattr(cls, name))
            assert ours in (theirs, [*theirs[: len(ours) - 1], ...]), (
                f"{path_of(cls)}.{name} takes {ours}, but that of {path_of(base)} {theirs}"
            )


def test_every_private_name_of_theirs_is_in_the_table():
    taken = set().union(*TAKEN.values())
    ours = {node.name for node in nodes(ast.FunctionDef | ast.ClassDef)}
    ours |= {node.id for node in nodes(ast.Name) if isinstance(node.ctx, ast.Store)}
    ours |= {node.attr for node in nodes(ast.Attribute) if isinstance(node.ctx, ast.Store)}
    for node in nodes(ast.Attribute):
        if is_private(node.attr) and node.attr not in ours | OF_OTHERS:
            assert node.attr in taken, f"{ast.unparse(node)} is a private name of another library: add it to TAKEN"
    for cls, base, source in our_subclasses():
        for node in nodes(ast.Attribute, source):
            if is_private(node.attr) and is_self(node.value) and node.attr in all_names(base):
                assert node.attr in taken, f"{path_of(cls)} uses {node.attr} of {path_of(base)}: add it to TAKEN"


def test_all_in_the_table_is_used():
    overridden, named = {(path_of(base), name) for _, name, base in overrides()}, {n.attr for n in nodes(ast.Attribute)}
    unused = [f"{path}.{name}" for path, name in TAKEN_NAMES if (path, name) not in overridden and name not in named]
    assert not unused, "delete these from TAKEN"


def test_what_our_classes_use_of_themselves_is_ours_or_theirs():
    """Such as ``self.UNet_vram_target_GB`` in a planner: an attribute that a new nnU-Net may no longer set."""
    for cls, base, source in our_subclasses():
        for node in nodes(ast.Attribute, source):
            if is_self(node.value) and not node.attr.startswith("__"):
                assert node.attr in all_names(cls), f"{path_of(cls)} uses {node.attr}, which {path_of(base)} has not"
