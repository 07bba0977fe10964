"""What this package relies on in nnU-Net 2.8. A failure says which contract a new nnunetv2 has broken, and for whom."""

import ast
import importlib
import importlib.metadata
import inspect
import textwrap

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

VERSION = importlib.metadata.version("nnunetv2")
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"

# stock class -> our class -> methods of ours that nnU-Net must call: a renamed one would silently never run
OVERRIDES = {
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner:ExperimentPlanner": {
        "nnunet_cmc.planners.cmc_planner:CMCPlanner": [
            "__init__",
            "determine_reader_writer",
            "determine_transpose",
            "determine_normalization_scheme_and_whether_mask_is_used_for_norm",
            "determine_fullres_target_spacing",
            "plan_experiment",
            "save_plans",
        ]
    },
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor:DatasetFingerprintExtractor": {
        "nnunet_cmc.planners.fingerprint:DatasetFingerprintExtractor": ["__init__", "run"]
    },
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor": {
        "nnunet_cmc.checked_predictor:CheckedPredictor": [
            "predict_logits_from_preprocessed_data",
            "_internal_predict_sliding_window_return_logits",
        ],
        "nnunet_cmc.windows:WindowPredictor": ["_internal_predict_sliding_window_return_logits"],
    },
    "nnunetv2.preprocessing.preprocessors.default_preprocessor:DefaultPreprocessor": {
        "nnunet_cmc.data.preprocessor:CMCPreprocessor": ["run_case", "run_case_npy", "_normalize", "run"]
    },
    "nnunetv2.preprocessing.normalization.default_normalization_schemes:ImageNormalization": {
        "nnunet_cmc.data.normalization:PositiveZScoreNormalization": ["run"],
        "nnunet_cmc.data.normalization:CTWindowNormalization": ["run"],
        "nnunet_cmc.data.normalization:PercentileNormalization": ["run"],
    },
    "nnunetv2.training.dataloading.nnunet_dataset:nnUNetDatasetBlosc2": {
        "nnunet_cmc.data.cases:LabeledDataset": ["load_case"],
        "nnunet_cmc.data.cases:UnlabeledDataset": ["load_case", "get_identifiers"],
    },
    "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader": {
        "nnunet_cmc.data.seeding:SeededLoader": ["generate_train_batch"]
    },
    "nnunetv2.training.logging.nnunet_logger:LocalLogger": {
        "nnunet_cmc.trainers.logger:SeriesLogger": ["plot_progress_png"]
    },
    TRAINER: {
        "nnunet_cmc.trainers.pair_trainer:PairTrainer": ["__init__", "initialize", "do_split", "get_dataloaders"],
        "nnunet_cmc.trainers.resumable_trainer:ResumableTrainer": [
            "run_training",
            "on_train_epoch_start",
            "train_step",
            "validation_step",
            "on_epoch_end",
            "save_checkpoint",
            "load_checkpoint",
        ],
        "nnunet_cmc.trainers.cmc_trainer:CMCTrainer": [
            "__init__",
            "build_network_architecture",
            "set_deep_supervision_enabled",
            "_do_i_compile",
            "initialize",
            "_build_loss",
            "configure_optimizers",
            "on_train_start",
            "on_train_epoch_end",
            "validation_step",
            "on_validation_epoch_end",
        ],
    },
}
CASES = [(stock, ours, name) for stock, by in OVERRIDES.items() for ours, names in by.items() for name in names]

# what we call -> the parameters that we give, by name or in this order
CALLS = {
    "nnunetv2.utilities.find_class_by_name:recursive_find_python_class": ["folder", "class_name", "current_module"],
    "nnunetv2.utilities.find_objects:recursive_find_trainer_class_by_name": ["trainer_name"],
    "nnunetv2.utilities.get_network_from_plans:get_network_from_plans": [
        "arch_class_name", "arch_kwargs", "arch_kwargs_req_import", "input_channels", "output_channels",
    ],
    "nnunetv2.utilities.utils:get_filenames_of_train_images_and_targets": ["raw_dataset_folder", "dataset_json"],
    "nnunetv2.utilities.label_handling.label_handling:LabelManager": ["label_dict", "regions_class_order"],
    "nnunetv2.preprocessing.resampling.default_resampling:compute_new_shape": [
        "old_shape", "old_spacing", "new_spacing",
    ],
    "nnunetv2.preprocessing.cropping.cropping:create_nonzero_mask": ["data"],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor": [
        "tile_step_size", "use_gaussian", "use_mirroring", "perform_everything_on_device", "device", "allow_tqdm",
    ],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor._manage_input_and_output_lists": [
        "list_of_lists_or_source_folder",
    ],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.initialize_from_trained_model_folder": [
        "model_training_output_dir", "use_folds", "checkpoint_name",
    ],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.auto_detect_available_folds": [
        "model_training_output_dir", "checkpoint_name",
    ],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.manual_initialization": [
        "network", "plans_manager", "configuration_manager", "parameters", "dataset_json", "trainer_name",
        "inference_allowed_mirroring_axes",
    ],
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.predict_logits_from_preprocessed_data": ["data"],
    "nnunetv2.inference.export_prediction:convert_predicted_logits_to_segmentation_with_correct_shape": [
        "predicted_logits", "plans_manager", "configuration_manager", "label_manager", "properties_dict",
        "num_threads_torch",
    ],
    "nnunetv2.training.dataloading.nnunet_dataset:nnUNetDatasetBlosc2.save_case": [
        "data", "seg", "properties", "output_filename_truncated",
    ],
    f"{TRAINER}.build_network_architecture": [
        "plans_manager", "configuration_manager", "num_input_channels", "num_output_channels",
        "enable_deep_supervision",
    ],
}  # fmt: skip

ATTRIBUTES = {
    "nnunetv2.paths:nnUNet_raw": ["get", "is_set", "env_var_name"],
    "nnunetv2.paths:nnUNet_preprocessed": ["get", "is_set", "env_var_name"],
    "nnunetv2.paths:nnUNet_results": ["get", "is_set", "env_var_name"],
    "nnunetv2.utilities.plans_handling.plans_handler:PlansManager": [
        "get_configuration", "get_label_manager", "image_reader_writer_class", "transpose_forward",
        "foreground_intensity_properties_per_channel",
    ],
    "nnunetv2.utilities.plans_handling.plans_handler:ConfigurationManager": [
        "data_identifier", "preprocessor_class", "patch_size", "batch_size", "batch_dice", "spacing",
        "use_mask_for_norm", "network_arch_class_name", "network_arch_init_kwargs",
        "network_arch_init_kwargs_req_import",
    ],
    "nnunetv2.utilities.label_handling.label_handling:LabelManager": [
        "all_labels", "has_regions", "has_ignore_label", "ignore_label", "num_segmentation_heads",
    ],
    "nnunetv2.imageio.simpleitk_reader_writer:SimpleITKIOWithReorient": ["read_images", "read_seg", "write_seg"],
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor:DatasetFingerprintExtractor": [
        "collect_foreground_intensities",
    ],
    TRAINER: [
        "run_training", "perform_actual_validation", "get_training_transforms", "get_validation_transforms",
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size", "print_to_log_file", "on_epoch_end",
    ],
}  # fmt: skip

# of a checkpoint: nnU-Net's predictor and its --c read these, and our trainer writes them itself
CHECKPOINT = {
    "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch", "init_args",
    "trainer_name", "inference_allowed_mirroring_axes",
}  # fmt: skip


def find(path: str):
    module, _, name = path.partition(":")
    try:
        thing = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"nnunetv2 {VERSION} has no {path} any more ({error}): it moved, or went.", pytrace=False)
    return thing


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(("stock", "ours", "name"), CASES, ids=[f"{o.split(':')[1]}.{n}" for _, o, n in CASES])
def test_what_we_override_is_called(stock, ours, name):
    theirs, mine = find(stock), find(ours)
    assert issubclass(mine, theirs), f"{ours} is no subclass of {stock} any more"
    assert name in vars(mine), f"{ours} overrides {name} no more: correct this list"
    assert hasattr(theirs, name), f"{stock}.{name} is gone from nnunetv2 {VERSION}: that of {ours} would never run"
    expected, found = parameters(getattr(theirs, name)), parameters(getattr(mine, name))
    assert found == expected, f"{stock}.{name} takes {expected} in nnunetv2 {VERSION}, but that of {ours} takes {found}"


@pytest.mark.parametrize("path", CALLS)
def test_what_we_call_takes_what_we_give(path):
    found = parameters(find(path))
    assert [name for name in found if name in CALLS[path]] == CALLS[path], (
        f"{path} takes {found} in nnunetv2 {VERSION}, but we give it {CALLS[path]}"
    )


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_what_we_read_is_there(path):
    missing = [name for name in ATTRIBUTES[path] if not hasattr(find(path), name)]
    assert not missing, f"{path} of nnunetv2 {VERSION} has no {', '.join(missing)}, on which we rely"


def test_our_checkpoints_have_all_that_nnunet_saves():
    tree = ast.parse(textwrap.dedent(inspect.getsource(nnUNetTrainer.save_checkpoint)))
    (saved,) = [node for node in ast.walk(tree) if isinstance(node, ast.Dict) and len(node.keys) > 3]
    keys = {key.value for key in saved.keys if isinstance(key, ast.Constant)}
    assert keys == CHECKPOINT, f"nnunetv2 {VERSION} saves {sorted(keys)} in a checkpoint, and we {sorted(CHECKPOINT)}"


def test_the_trainers_arguments_are_those_that_nnunet_gives():
    expected = ["plans", "configuration", "fold", "dataset_json", "device"]
    found = parameters(nnUNetTrainer.__init__)
    assert found == expected, f"nnUNetTrainer of nnunetv2 {VERSION} takes {found}, but all our trainers take {expected}"


def test_the_series_that_we_plot_are_logged():
    logger = find("nnunetv2.training.logging.nnunet_logger:LocalLogger")()
    wanted = {
        "train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs", "epoch_start_timestamps",
        "epoch_end_timestamps", "dice_per_class_or_region",
    }  # fmt: skip
    missing = wanted - set(logger.my_fantastic_logging)
    assert not missing, f"the logger of nnunetv2 {VERSION} keeps no {sorted(missing)}, which progress.png shows"


def test_planning_always_names_the_stock_preprocessor():
    """So our planners set their own, and refuse what else is asked for."""
    function = find("nnunetv2.experiment_planning.plan_and_preprocess_api:plan_experiment_dataset")
    default = inspect.signature(function).parameters["preprocess_class_name"].default
    assert default == "DefaultPreprocessor", f"nnunetv2 {VERSION} names the preprocessor {default} where nobody asks"


def test_extra_keys_of_a_fold_and_of_dataset_json_are_ignored():
    handler = find("nnunetv2.utilities.plans_handling.plans_handler:PlansManager")
    plans = {"label_manager": "LabelManager", "configurations": {"3d_fullres": {"architecture": {}, "ours": 1}}}
    manager = handler(plans)
    dataset_json = {"labels": {"background": 0, "a": 1}, "cmc": {"version": 1}}
    assert manager.get_label_manager(dataset_json).all_labels == [0, 1]
    assert manager.get_configuration("3d_fullres").configuration["ours"] == 1, "the learning rate in our plans is lost"
