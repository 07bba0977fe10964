"""What this package relies on in nnU-Net 2.8. A failure says which contract a new nnunetv2 has broken, and for whom."""

import ast
import importlib
import importlib.metadata
import inspect
import textwrap
from functools import cache

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from source_files import imports, modules

VERSION = importlib.metadata.version("nnunetv2")
THEIRS = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "acvl_utils", "dynamic_network_architectures")
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"

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
    "dynamic_network_architectures.building_blocks.plain_conv_encoder:PlainConvEncoder": {
        "__init__": "input_channels n_stages features_per_stage conv_op kernel_sizes strides n_conv_per_stage "
        "conv_bias norm_op norm_op_kwargs dropout_op dropout_op_kwargs nonlin nonlin_kwargs return_skips nonlin_first "
        "pool",
    },
    "dynamic_network_architectures.building_blocks.unet_decoder:UNetDecoder": {
        "__init__": "encoder num_classes n_conv_per_stage deep_supervision nonlin_first norm_op norm_op_kwargs "
        "dropout_op dropout_op_kwargs nonlin nonlin_kwargs conv_bias",
    },
    "dynamic_network_architectures.building_blocks.residual_encoders:ResidualEncoder": {
        "__init__": "input_channels n_stages features_per_stage conv_op kernel_sizes strides n_blocks_per_stage "
        "conv_bias norm_op norm_op_kwargs dropout_op dropout_op_kwargs nonlin nonlin_kwargs block bottleneck_channels "
        "return_skips disable_default_stem stem_channels pool_type stochastic_depth_p squeeze_excitation "
        "squeeze_excitation_reduction_ratio",
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
        "on_train_epoch_end": "train_outputs",
        "on_train_epoch_start": "",
        "on_train_start": "",
        "on_validation_epoch_end": "val_outputs",
        "perform_actual_validation": "save_probabilities",
        "run_training": "",
        "save_checkpoint": "filename",
        "set_deep_supervision_enabled": "enabled",
        "train_step": "batch",
        "validation_step": "batch",
    },
}
TAKEN_NAMES = [(path, name) for path, names in TAKEN.items() for name in names]
# constructed by ourselves, with arguments of our own; all others by nnU-Net
CONSTRUCTED_BY_US = (
    *("BasicTransform", "ResidualEncoder", "nnUNetDataLoader", "nnUNetDatasetBlosc2", "LocalLogger", "PolyLRScheduler"),
)
# private names that we use of other libraries
OF_OTHERS = {"_SubParsersAction", "_actions", "_exit", "_fields", "_foreach_lerp_", "_replace"}

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


def is_theirs(module: str) -> bool:
    return module.partition(".")[0] in THEIRS


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.AST) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def nodes(kind, *trees: ast.AST) -> list:
    """Return the nodes of a kind in ``trees``, or in all our modules."""
    return [node for tree in trees or modules().values() for node in ast.walk(tree) if isinstance(node, kind)]


@cache
def own_names(cls: type) -> set[str]:
    """Return what ``cls`` itself defines: attributes of the class, and what its methods assign to ``self``."""
    if cls.__module__ == "builtins":
        return set(dir(cls))
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    assigned = {node.attr for node in nodes(ast.Attribute, tree) if isinstance(node.ctx, ast.Store)}
    return {*vars(cls), *vars(cls).get("__annotations__", {}), *assigned}


def all_names(cls: type) -> set[str]:
    return set().union(*map(own_names, cls.__mro__))


@cache
def our_subclasses() -> list[tuple[type, type, ast.ClassDef]]:
    """Return our classes that inherit from theirs: the class, the nearest base of theirs, the source."""
    found = []
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                cls = getattr(importlib.import_module(name), node.name)
                if base := next((base for base in cls.__mro__ if is_theirs(base.__module__)), None):
                    found.append((cls, base, node))
    return found


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


def path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__name__}"


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
