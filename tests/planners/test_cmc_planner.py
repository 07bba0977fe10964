import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.dataset_conversion.folders import convert_folders
from nnunet_cmc.networks import CMCNet, build_encoder
from nnunet_cmc.networks.decoder import DECODERS, Decoder
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.fingerprint import CMCFingerprintExtractor
from nnunet_cmc.planners.tiny import CMCPlannerTiny
from nnunet_cmc.planners.universal import CMCPlannerUniversal
from nnunet_cmc.planners.vnet import CMCPlannerVNet


def read(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("planner", "name", "patch_size", "batch_size", "encoder", "spacing"),
    [
        # extents 300 x 192 x 192 and 160 x 200 x 200 mm, median 230 x 196 x 196; finest 0.75 and 1.25, median 1
        (CMCPlanner, "CMCPlans", 96, 4, "sam_med3d", 230 / 192),
        (CMCPlannerTiny, "CMCTinyPlans", 48, 2, "sam_med3d", 230 / 96),
        (CMCPlannerUniversal, "CMCUniversalPlans", 96, 4, "universal", 230 / 192),
        (CMCPlannerVNet, "CMCVNetPlans", 96, 4, "vnet", 230 / 192),
    ],
)
def test_plans(dataset, planner, name, patch_size, batch_size, encoder, spacing, capsys):
    raw, preprocessed = dataset
    plans = planner(1).plan_experiment()
    assert read(preprocessed / f"{name}.json") == plans
    assert read(preprocessed / "dataset.json") == read(raw / "dataset.json")
    assert plans["spacing_reason"] in capsys.readouterr().out

    manager = PlansManager(str(preprocessed / f"{name}.json"))
    assert manager.plans_name == name
    assert manager.experiment_planner_name == planner.__name__
    assert manager.available_configurations == ["3d_fullres"]
    assert manager.image_reader_writer_class.__name__ == "CMCReaderWriter"
    assert manager.transpose_forward == manager.transpose_backward == [0, 1, 2]
    assert manager.original_median_spacing_after_transp == [4.5, 1, 1]
    assert manager.original_median_shape_after_transp == [50, 208, 208]
    configuration = manager.get_configuration("3d_fullres")
    assert configuration.data_identifier == f"{name}_3d_fullres"
    assert configuration.preprocessor_name == "CMCPreprocessor"
    assert configuration.patch_size == [patch_size] * 3
    assert configuration.batch_size == batch_size
    assert configuration.spacing == pytest.approx([spacing] * 3)
    assert configuration.median_image_size_in_voxels == pytest.approx(np.array([230, 196, 196]) / spacing, abs=1)
    assert not configuration.batch_dice
    for resample in (configuration.resampling_fn_data, configuration.resampling_fn_probabilities):
        assert resample(np.ones((1, 4, 4, 4)), (2, 2, 2), (1, 1, 1), (2, 2, 2)).shape == (1, 2, 2, 2)
    assert configuration.configuration["learning_rate"] > 0

    assert configuration.network_arch_class_name == "nnunet_cmc.networks.CMCNet"
    assert configuration.network_arch_init_kwargs_req_import == []
    network = configuration.network_arch_init_kwargs
    assert set(network) == {"patch_size", "encoder", "encoder_kwargs", "decoder_channels", "checkpointing"}
    assert network["patch_size"] == [patch_size] * 3
    assert network["encoder"] == encoder
    if encoder == "sam_med3d":
        assert network["encoder_kwargs"]["image_size"] == patch_size
        stride = network["encoder_kwargs"]["patch_size"]
        assert len(network["decoder_channels"]) == np.log2(stride)  # one for each stride below the tokens'
    with torch.device("meta"):
        CMCNet(2, 3, **network)


STOCK = (["CTNormalization", "ZScoreNormalization"], [False, True])


@pytest.mark.parametrize(
    ("planner", "expected"),
    [
        (CMCPlanner, (["CTPositiveZScoreNormalization", "PositiveZScoreNormalization"], [False, False])),
        (CMCPlannerUniversal, (["CTWindowNormalization", "PercentileNormalization"], [False, False])),
        (CMCPlannerTiny, STOCK),
        (CMCPlannerVNet, STOCK),
    ],
)
def test_each_planner_plans_the_intensities_of_its_encoder(dataset, planner, expected):
    plans = planner(1).plan_experiment()
    configuration = PlansManager(plans).get_configuration("3d_fullres")
    assert (configuration.normalization_schemes, configuration.use_mask_for_norm) == expected
    raw, _ = dataset
    files = [str(raw / f"imagesTr/ct_000{channel}.nii.gz") for channel in (0, 1)]
    dataset_json = read(raw / "dataset.json")
    data, _, _ = CMCPreprocessor(verbose=False).run_case(
        files, str(raw / "labelsTr/ct.nii.gz"), PlansManager(plans), configuration, dataset_json
    )
    assert np.isfinite(data).all()
    assert (data[0] != 0).all()
    assert (data[1] == 0).all(), "an absent channel stays zero"


def test_says_how_each_modality_is_normalised(dataset, capsys):
    raw, _ = dataset
    content = read(raw / "dataset.json")
    content["cmc"]["modalities"], content["channel_names"] = ["early", "late"], {"0": "CT", "1": "CT"}
    (raw / "dataset.json").write_text(json.dumps(content))
    CMCPlanner(1).plan_experiment()
    expected = ", ".join(f"{name} as CT (CTPositiveZScoreNormalization)" for name in ("early", "late"))
    assert f"Normalisation: {expected}." in capsys.readouterr().out


def test_channels_that_ask_for_a_scheme_of_nnunet_get_it(dataset):
    raw, _ = dataset
    dataset_json = read(raw / "dataset.json")
    dataset_json["channel_names"] = {"0": "CT", "1": "noNorm"}
    (raw / "dataset.json").write_text(json.dumps(dataset_json))
    configuration = CMCPlanner(1).plan_experiment()["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["CTPositiveZScoreNormalization", "NoNormalization"]


def test_statistics_come_from_the_modality_alone(dataset):
    statistics = CMCPlanner(1).plan_experiment()["foreground_intensity_properties_per_channel"]
    assert statistics["0"]["mean"] == pytest.approx(50, abs=3)
    assert statistics["1"]["mean"] == pytest.approx(300, abs=3)
    assert min(statistics["0"]["min"], statistics["1"]["min"]) > 0


@pytest.mark.parametrize("where", [0, 1])  # raw, or only preprocessed
def test_hidden_cases_are_left_out(dataset, where, capsys):
    fold = {"train": ["ct"], "val": ["ct"], "unlabeled": ["mr"]}
    (dataset[where] / "splits_final.json").write_text(json.dumps([fold]))
    CMCPlanner(1).plan_experiment()
    assert "Intensity statistics of MR: every label of it is hidden in some fold" in capsys.readouterr().out
    if where == 0:
        assert read(dataset[1] / "splits_final.json") == [fold]


def test_splits_that_disagree_stop_it(dataset):
    fold = {"train": ["ct"], "val": ["ct"]}
    (dataset[0] / "splits_final.json").write_text(json.dumps([{**fold, "unlabeled": ["mr"]}]))
    (dataset[1] / "splits_final.json").write_text(json.dumps([fold]))
    with pytest.raises(ValueError, match=r'is another one in .*\(case mr is in "unlabeled", and in no list\)'):
        CMCPlanner(1)


def test_given_spacing_wins(dataset):
    plans = CMCPlanner(1, overwrite_target_spacing=[3.0, 1.0, 2.0], plans_name="Mine").plan_experiment()
    configuration = read(dataset[1] / "Mine.json")["configurations"]["3d_fullres"]
    assert configuration["spacing"] == [3, 1, 2]
    assert configuration["data_identifier"] == "Mine_3d_fullres"
    assert plans["spacing_reason"] == "3 x 1 x 2 mm, as -overwrite_target_spacing says."


@pytest.mark.parametrize(
    "spacing", [[1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [np.inf, 1.0, 1.0], [np.nan, 1.0, 1.0]]
)
def test_a_given_spacing_is_three_positive_numbers(dataset, spacing):
    with pytest.raises(ValueError, match="-overwrite_target_spacing takes three positive numbers"):
        CMCPlanner(1, overwrite_target_spacing=spacing)


@pytest.mark.parametrize("memory", [0, -1, np.nan])
def test_a_memory_target_is_above_zero(dataset, memory):
    with pytest.raises(ValueError, match=f"-gpu_memory_target takes a number of GB above 0, .* not {memory}"):
        CMCPlanner(1, gpu_memory_target_in_gb=memory)


def test_another_preprocessor_is_refused(dataset):
    with pytest.raises(ValueError, match="the preprocessor CMCPreprocessor, but -preprocessor_name asks for Mine"):
        CMCPlanner(1, preprocessor_name="Mine")
    assert CMCPlanner(1, preprocessor_name="CMCPreprocessor").preprocessor_name == "CMCPreprocessor"


def test_a_training_beyond_the_memory_target_computes_activations_twice(dataset, capsys):
    def checkpointing(plans):
        return plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["checkpointing"]

    plans = CMCPlanner(1).plan_experiment()
    assert not checkpointing(plans)
    assert "within the target of 24 GB" in plans["memory_reason"]
    small = CMCPlanner(1, gpu_memory_target_in_gb=4).plan_experiment()
    assert checkpointing(small)
    assert f"GPU memory: {small['memory_reason']}" in capsys.readouterr().out
    assert checkpointing(CMCPlannerUniversal(1).plan_experiment())


@pytest.mark.parametrize("planner", [CMCPlanner, CMCPlannerTiny, CMCPlannerUniversal, CMCPlannerVNet])
def test_what_planners_say_of_memory_is_what_their_networks_need(planner, monkeypatch):
    """Counted in mixed precision on tensors without data, which a dozen GB of them does not matter to."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        encoder = build_encoder(planner.encoder, **planner.encoder_kwargs)
        decoder = DECODERS.get(planner.encoder, Decoder)(encoder, list(planner.decoder_channels), 5)
        parameters = [p for part in (encoder, decoder) for p in part.parameters()]
        with saved_tensors_hooks(note, lambda tensor: tensor):
            maps = encoder(torch.empty(1, 1, *[planner.patch_size] * 3))
            decoder(maps)
        for parameter in parameters:
            saved.pop(parameter.untyped_storage()._cdata, None)
    weights = 16e-9 * sum(p.numel() for p in parameters)
    assert planner.gb_of_weights == pytest.approx(weights, rel=0.05, abs=0.01)
    assert planner.gb_per_patch == pytest.approx(1e-9 * sum(saved.values()), rel=0.15, abs=0.01)


def test_stale_configurations_are_removed(dataset, capsys):
    old = {
        "2d": {"patch_size": [512, 512]},
        "3d_fullres": {"patch_size": [1, 1, 1]},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_fullres_bs2": {"inherits_from": "3d_fullres", "batch_size": 2},
        "3d_fullres_bs2_small": {"inherits_from": "3d_fullres_bs2", "patch_size": [32, 32, 32]},
        "of_another": {"inherits_from": "3d_cascade_fullres"},
        "of_itself": {"inherits_from": "of_itself"},
    }
    file = dataset[1] / "CMCPlans.json"
    file.write_text(json.dumps({"configurations": old}))
    CMCPlanner(1).plan_experiment()
    configurations = read(file)["configurations"]
    assert list(configurations) == ["3d_fullres", "3d_fullres_bs2", "3d_fullres_bs2_small"]
    assert configurations["3d_fullres"]["patch_size"] == [96, 96, 96]
    assert PlansManager(str(file)).get_configuration("3d_fullres_bs2_small").batch_size == 2
    printed = capsys.readouterr().out
    assert "Removing configuration 2d from" in printed
    assert "Removing configuration 3d_cascade_fullres from" in printed
    assert "Removing configuration of_another from" in printed
    assert "Removing configuration of_itself from" in printed


def test_bad_cases_stop_it(dataset):
    raw, preprocessed = dataset
    (raw / "imagesTr" / "mr_0000.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"Case mr: the file of channel 0 \(CT\) is missing"):
        CMCPlanner(1).plan_experiment()
    assert not (preprocessed / "CMCPlans.json").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "There is no"),
        ('{"spacings": [[1.0, 1', "is not JSON"),
        ("{}", "dataset_fingerprint.json has no spacings"),
        ("[]", "dataset_fingerprint.json has no spacings"),
        ("5", "dataset_fingerprint.json has no spacings"),
    ],
)
def test_a_fingerprint_that_is_missing_or_truncated(dataset, content, found):
    file = dataset[1] / "dataset_fingerprint.json"
    file.unlink() if content is None else file.write_text(content)
    remedy = r"run nnUNetv2_extract_fingerprint -d 1 -fpe CMCFingerprintExtractor --clean\."
    with pytest.raises(ValueError, match=f"{found}.*: {remedy}"):
        CMCPlanner(1)


def test_scans_are_counted_where_dataset_json_does_not_say_how_many_there_are(dataset):
    file = dataset[0] / "dataset.json"
    content = read(file)
    del content["numTraining"]
    file.write_text(json.dumps(content))
    assert CMCPlanner(1).dataset_json["numTraining"] == 2


REFUSED_LABELS = {
    "regions": ({"background": 0, "whole": [1, 2], "core": 2}, "region-based labels"),
    "ignore": ({"background": 0, "liver": 1, "ignore": 2}, "an ignore label"),
}


@pytest.mark.parametrize("made", [CMCPlanner, CMCFingerprintExtractor])
@pytest.mark.parametrize("kind", REFUSED_LABELS)
def test_labels_that_are_regions_or_ignored_are_refused_before_any_work(dataset, made, kind):
    raw, preprocessed = dataset
    labels, name = REFUSED_LABELS[kind]
    file = raw / "dataset.json"
    file.write_text(json.dumps(read(file) | {"labels": labels, "regions_class_order": [1, 2]}))
    with pytest.raises(ValueError, match=f"{made.__name__} does not support {name}, which dataset.json has: use one"):
        made(1)
    assert [file.name for file in preprocessed.iterdir()] == ["dataset_fingerprint.json"]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
@pytest.mark.parametrize("made", [CMCPlanner, CMCFingerprintExtractor, CMCPreprocessor().run])
def test_a_variable_that_is_not_set(dataset, monkeypatch, made, variable):
    monkeypatch.delenv(variable)
    arguments = (1, "3d_fullres", "CMCPlans", 1) if made not in (CMCPlanner, CMCFingerprintExtractor) else (1,)
    with pytest.raises(ValueError, match=f"{variable} is not set: set this variable to nnU-Net's folder of that name"):
        made(*arguments)


def test_real_ct_and_mr(shared_data, nnunet_folders):
    folders: dict[str, dict[str, Path]] = {"image": {}, "label": {}}
    voxels = {}
    for channel, modality in enumerate(("CT", "MR")):
        for what, sources in folders.items():
            sources[modality] = nnunet_folders / what / modality
            sources[modality].mkdir(parents=True)
            shutil.copy(shared_data / "abdomen_ct_mr" / f"{modality}_{what}.nii.gz", sources[modality] / "one.nii.gz")
        image, label = (SimpleITK.ReadImage(sources[modality] / "one.nii.gz") for sources in folders.values())
        voxels[channel] = SimpleITK.GetArrayFromImage(image)[SimpleITK.GetArrayFromImage(label) > 0]
    classes = {"background": 0, "liver": 1, "spleen": 2, "kidneys": 3, "stomach": 4}
    raw = convert_folders(1, "Abdomen", folders["image"], folders["label"], classes)
    dataset_json = json.loads((raw / "dataset.json").read_text())

    CMCFingerprintExtractor(1, 1).run()
    plans = CMCPlanner(1).plan_experiment()
    for channel, statistics in plans["foreground_intensity_properties_per_channel"].items():
        expected = voxels[int(channel)]
        assert statistics["mean"] == pytest.approx(expected.mean(), abs=0.01 * expected.std())
        assert statistics["std"] == pytest.approx(expected.std(), rel=0.01)
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    assert configuration.patch_size == [96, 96, 96]
    assert configuration.spacing == [3, 3, 3]  # as the scans are, which 96 voxels span
    for channel, case in enumerate(("one_CT", "one_MR")):
        files = [str(raw / f"imagesTr/{case}_{c:04d}.nii.gz") for c in (1, 0)]
        data, _, properties = CMCPreprocessor(verbose=False).run_case(
            files, str(raw / f"labelsTr/{case}.nii.gz"), manager, configuration, dataset_json
        )
        assert properties["present_channels"] == [channel]
        assert (data[1 - channel] == 0).all()
        assert (data[channel] != 0).all()
