"""A model in memory: the command's results, from any input and any number of threads, without trust in its files."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from evil import Evil
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

import nnunet_cmc
from nnunet_cmc.inference import predictor as module
from nnunet_cmc.inference.predictor import Predictor

CASES = ("both", "ct", "mirrored", "mr", "oblique", "small")


def read(file) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def files_of(tiny, case) -> list[str]:
    return sorted(str(file) for file in tiny.new.glob(f"{case}_*.nii.gz"))


@pytest.fixture(scope="module")
def predictor(tiny) -> Predictor:
    return Predictor(tiny.model, device="cpu")


@pytest.fixture(scope="module")
def stock(tiny, tmp_path_factory):
    """What nnU-Net's own predictor writes, which is what nnUNetv2_predict writes."""
    folder = tmp_path_factory.mktemp("stock")
    own = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    own.initialize_from_trained_model_folder(str(tiny.model), ["0"])
    own.predict_from_files_sequential([files_of(tiny, case) for case in CASES], [str(folder / case) for case in CASES])
    return folder


def test_it_is_found_where_users_look_and_costs_nothing_before():
    assert nnunet_cmc.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'Predictors'"):
        _ = nnunet_cmc.Predictors


@pytest.mark.parametrize("case", CASES)
def test_files_give_what_the_command_gives_on_their_own_grid(tiny, predictor, stock, case, tmp_path):
    expected, given = sitk.ReadImage(str(stock / f"{case}.nii.gz")), sitk.ReadImage(files_of(tiny, case)[0])
    found = predictor.predict_files(files_of(tiny, case)[::-1], tmp_path / "labels.nii.gz")
    for image in (
        found,
        sitk.ReadImage(str(tmp_path / "labels.nii.gz")),
        predictor.predict_files(files_of(tiny, case)),
    ):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
        assert image.GetSize() == given.GetSize()
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(image, geometry)(), getattr(given, geometry)(), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.nii.gz"]


@pytest.mark.parametrize(("case", "names"), [("small", ("CT", "MR")), ("mr", ("MR",)), ("ct", ("CT",))])
def test_arrays_give_what_files_give(tiny, predictor, stock, case, names):
    images = [sitk.DICOMOrient(sitk.ReadImage(file), "RAS") for file in files_of(tiny, case)]
    volumes = dict(zip(names, map(sitk.GetArrayFromImage, images), strict=True))
    before = {name: volume.copy() for name, volume in volumes.items()}
    found = predictor.predict(volumes, images[0].GetSpacing()[::-1])
    expected = sitk.DICOMOrient(sitk.ReadImage(str(stock / f"{case}.nii.gz")), "RAS")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(expected))
    assert all(np.array_equal(before[name], volume) for name, volume in volumes.items())


def test_many_threads_at_once_get_the_same_and_two_cases_are_in_memory(tiny, predictor, stock, monkeypatch):
    inside, most, lock = 0, 0, threading.Lock()
    run_case = predictor._preprocessor.run_case
    predict = predictor._predictor.predict_logits_from_preprocessed_data
    in_network = []

    def watched_case(*arguments):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        return run_case(*arguments)

    def watched_network(data):
        in_network.append(threading.get_ident())
        result = predict(data)
        assert in_network.pop() == threading.get_ident()
        return result

    def one(case):
        nonlocal inside
        result = sitk.GetArrayFromImage(predictor.predict_files(files_of(tiny, case)))
        return result

    class Watched(type(predictor._memory_slots)):
        def release(self, *arguments):
            nonlocal inside
            with lock:
                inside -= 1
            super().release(*arguments)

        __exit__ = lambda self, *_: self.release()  # noqa: E731

    monkeypatch.setattr(predictor, "_memory_slots", Watched(module.CASES_IN_MEMORY))
    monkeypatch.setattr(predictor._preprocessor, "run_case", watched_case)
    monkeypatch.setattr(predictor._predictor, "predict_logits_from_preprocessed_data", watched_network)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, CASES * 3))
    for case, result in zip(CASES * 3, results, strict=True):
        np.testing.assert_array_equal(result, read(stock / f"{case}.nii.gz"))
    assert most == module.CASES_IN_MEMORY
    assert inside == 0


def test_arrays_that_wait_are_not_copied_yet(predictor, monkeypatch):
    copied, stacked = threading.Event(), predictor._stacked
    monkeypatch.setattr(predictor, "_stacked", lambda volumes: copied.set() or stacked(volumes))
    for _ in range(module.CASES_IN_MEMORY):
        predictor._memory_slots.acquire()
    waiting = threading.Thread(target=predictor.predict, args=({"CT": VOLUME}, (1, 1, 1)))
    waiting.start()
    assert not copied.wait(0.2)
    for _ in range(module.CASES_IN_MEMORY):
        predictor._memory_slots.release()
    waiting.join()
    assert copied.is_set()


def test_a_bad_case_does_not_stop_the_others(tiny, predictor, stock, tmp_path, capsys):
    cases = tmp_path / "cases"
    shutil.copytree(tiny.new, cases)
    (cases / "cut_0000.nii.gz").write_bytes((cases / "ct_0000.nii.gz").read_bytes()[:9000])
    shutil.copy(cases / "ct_0000.nii.gz", cases / "stray.nii.gz")
    failures = predictor.predict_folder(cases, tmp_path / "out")
    assert set(failures) == {"cut", "stray"}
    assert "cut_0000.nii.gz cannot be read" in failures["cut"]
    assert "stray.nii.gz has no channel number" in failures["stray"]
    printed = capsys.readouterr().out
    assert "Predicted 6 of 8 cases" in printed
    assert f"Not predicted: cut: {failures['cut']}" in printed
    names = {f"{case}.nii.gz" for case in CASES} | {"dataset.json", "plans.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    for case in CASES:
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{case}.nii.gz"), read(stock / f"{case}.nii.gz"))

    untouched = (tmp_path / "out" / "both.nii.gz").stat().st_mtime_ns
    (tmp_path / "out" / "mr.nii.gz").unlink()
    predictor.predict_folder(tiny.new, tmp_path / "out", overwrite=False)
    assert "Predicted 1 of 1 cases" in capsys.readouterr().out
    assert (tmp_path / "out" / "both.nii.gz").stat().st_mtime_ns == untouched
    np.testing.assert_array_equal(read(tmp_path / "out" / "mr.nii.gz"), read(stock / "mr.nii.gz"))


def test_the_mean_of_folds_is_nnunets(tiny, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    checkpoint["network_weights"] = {
        key: value + 0.02 * torch.randn(value.shape) if value.is_floating_point() else value
        for key, value in checkpoint["network_weights"].items()
    }
    (model / "fold_1").mkdir()
    torch.save(checkpoint, model / "fold_1" / "checkpoint_final.pth")
    own = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False, tile_step_size=0.7)
    own.initialize_from_trained_model_folder(str(model), ["0", "1"])
    own.predict_from_files_sequential([files_of(tiny, "both")], [str(tmp_path / "stock")])
    found = Predictor(model, device="cpu", mirroring=False, step_size=0.7).predict_files(files_of(tiny, "both"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), read(tmp_path / "stock.nii.gz"))


@pytest.mark.parametrize("folds", [0, "0", [0]])
def test_one_fold_need_not_be_a_list(tiny, folds):
    assert Predictor(tiny.model, folds, device="cpu").modalities == Predictor(tiny.model, device="cpu").modalities


VOLUME = np.ones((4, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("volumes", "spacing", "sentence"),
    [
        ({"PET": VOLUME}, (1, 1, 1), "There is no modality PET; the model has CT, MR"),
        ({}, (1, 1, 1), "There is no volume: give one of CT, MR"),
        ({"CT": VOLUME, "MR": VOLUME[1:]}, (1, 1, 1), r"of one shape, but are \[\(3, 5, 6\), \(4, 5, 6\)\]"),
        ({"CT": VOLUME[0]}, (1, 1, 1), r"must all be \(D, H, W\), of one shape, but are \[\(5, 6\)\]"),
        ({"CT": VOLUME * np.nan}, (1, 1, 1), "The volume of CT .float32. must hold finite numbers"),
        ({"CT": VOLUME.astype(float) + 1e39}, (1, 1, 1), "The volume of CT .float64. must hold finite numbers"),
        ({"CT": VOLUME.astype(complex)}, (1, 1, 1), "The volume of CT .complex128. must hold finite numbers"),
        ({"CT": VOLUME}, (1, 1), r"three positive numbers .* but is \[1, 1\]"),
        ({"CT": VOLUME}, (1, 0, 1), r"three positive numbers .* but is \[1, 0, 1\]"),
        ({"CT": VOLUME * 0}, (1, 1, 1), "is empty: all its voxels are zero"),
        ({"CT": VOLUME}, (0.01, 0.01, 0.01), "less than a voxel of the planned spacing 1 x 1 x 1 mm"),
    ],
)
def test_arrays_that_are_no_case(predictor, volumes, spacing, sentence):
    with pytest.raises(ValueError, match=sentence):
        predictor.predict(volumes, spacing)


def test_folders_that_hold_no_case(predictor, tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder .*none"):
        predictor.predict_folder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match=r"has no file that ends in \.nii\.gz"):
        predictor.predict_folder(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change_plans(model, **changes):
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"].update(changes)
    (model / "plans.json").write_text(json.dumps(plans))


def change_entry(model, **changes):
    plans = json.loads((model / "plans.json").read_text())
    (model / "plans.json").write_text(json.dumps(plans | changes))


def change_labels(model):
    dataset_json = json.loads((model / "dataset.json").read_text())
    dataset_json["labels"]["more"] = 2
    (model / "dataset.json").write_text(json.dumps(dataset_json))


def change_checkpoint(model, **changes):
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | changes, file)


PATCH = {"patch_size": [16, 16, 16]}
DAMAGES = {
    "no plans": (lambda m: (m / "plans.json").unlink(), "is no trained model: give the folder TRAINER__PLANS"),
    "no dataset": (lambda m: (m / "dataset.json").unlink(), "There is no .*dataset.json"),
    "broken plans": (lambda m: (m / "plans.json").write_text("{"), "plans.json is not JSON"),
    "no fold": (lambda m: shutil.rmtree(m / "fold_0"), "has no fold with a checkpoint_final.pth"),
    "cut": (lambda m: os.truncate(m / "fold_0" / "checkpoint_final.pth", 9999), "something else or truncated"),
    "another trainer": (lambda m: change_checkpoint(m, trainer_name="nnUNetTrainer"), "of nnUNetTrainer, which is no"),
    "no trainer": (lambda m: change_checkpoint(m, trainer_name=7), "is no checkpoint that nnU-Net saved"),
    "axes": (lambda m: change_checkpoint(m, inference_allowed_mirroring_axes=(9,)), "is no checkpoint that nnU-Net"),
    "classes": (change_labels, "holds no network of .*plans.json and .*dataset.json: .* of another shape"),
    "foreign network": (lambda m: change_plans(m, network_class_name="os.system"), "their network is os.system"),
    "a call in our package": (
        lambda m: change_plans(m, network_class_name="nnunet_cmc.utils.checkpoints.torch.hub.load"),
        "their network is nnunet_cmc.utils.checkpoints.torch.hub.load",
    ),
    "imports": (lambda m: change_plans(m, _kw_requires_import=["encoder"]), "do not describe the network"),
    "arguments": (
        lambda m: change_plans(m, arch_kwargs={"patch_size": [16] * 3, "what": 1}),
        "do not describe a network .*TypeError",
    ),
    "a call by name": (
        lambda m: change_entry(m, label_manager="load_pickle"),
        "plans.json: the plans have 'load_pickle' as label_manager, which nnU-Net would look up and call",
    ),
    "code": (lambda m: change_checkpoint(m, extra=Evil(m / "executed")), "a Python object .*mkdir.* are never loaded"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_that_cannot_be_trusted(tiny, tmp_path, damage):
    change, sentence = DAMAGES[damage]
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    change(model)
    with pytest.raises(ValueError, match=sentence) as error:
        Predictor(model, device="cpu")
    assert "\n" not in str(error.value)
    assert not (model / "executed").exists()
