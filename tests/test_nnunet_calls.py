"""What we call, read and expect of nnU-Net 2.8. A failure says what a new nnunetv2 has broken, and for whom."""

import ast
import inspect
import textwrap

import pytest
from nnunet_contracts import TRAINER, VERSION, find, is_self, is_theirs, nodes, our_subclasses, parameters, path_of
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from source_files import imports, modules

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
    # what get_do_oversample is
    "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader._oversample_last_XX_percent": ["sample_idx"],
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


def test_our_calls_fit_their_parameters():
    """Of every function and class of theirs that we import, and of every method that our classes inherit."""
    checked = 0
    for name, tree in modules().items():
        imported = {local: f"{module}:{thing}" for local, module, thing in imports(tree) if thing and is_theirs(module)}
        for call in nodes(ast.Call, tree):
            if isinstance(call.func, ast.Name) and call.func.id in imported:
                checked += fits(find(imported[call.func.id]), call, name)
    for cls, _, source in our_subclasses():
        for call in nodes(ast.Call, source):
            if isinstance(call.func, ast.Attribute) and is_self(call.func.value):
                classes = cls.__mro__[ast.unparse(call.func.value) == "super()" :]
                owner = next((base for base in classes if call.func.attr in vars(base)), object)
                if is_theirs(owner.__module__):
                    static = isinstance(vars(owner)[call.func.attr], staticmethod | classmethod)
                    checked += fits(getattr(owner, call.func.attr), call, path_of(cls), *[None] * (not static))
    assert checked > 80


def fits(function, call: ast.Call, where: str, *implied: None) -> bool:
    """Fail if ``function`` cannot be called so. Returns False where that cannot be told, for ``*`` or ``**``."""
    if any(isinstance(argument, ast.Starred) for argument in call.args) or any(k.arg is None for k in call.keywords):
        return False
    try:
        keywords = {str(keyword.arg): None for keyword in call.keywords}
        inspect.signature(function).bind(*implied, *[None] * len(call.args), **keywords)
    except TypeError as error:
        pytest.fail(f"{where} calls {ast.unparse(call)}, but in nnunetv2 {VERSION}: {error}", pytrace=False)
    return True


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
