"""Damaged volumes at every stage that reads any: one sentence with the case and the file, and nothing written."""

import gzip
import json
import shutil
from itertools import product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from bad_input import of_test
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_cmc.commands.main import main
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNetSmall

SHAPE = (8, 9, 10)
VOLUME = np.random.default_rng(0).integers(1, 200, SHAPE).astype(np.int16)
LABEL = np.indices(SHAPE)[0].astype(np.uint8) % 3


def write(file, array, **options):
    image = sitk.GetImageFromArray(array, **options)
    if image.GetDimension() == 3:
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # as make_dataset
    sitk.WriteImage(image, str(file))


def whole(file):
    write(file, VOLUME)


def truncated(file):
    whole(file)
    file.write_bytes(file.read_bytes()[:-300])


def no_permission(file):
    whole(file)
    file.chmod(0)


def colours(file):
    write(file, np.ones((*SHAPE, 3), np.uint8), isVector=True)


def complex_numbers(file):
    nibabel.Nifti1Image(np.ones(SHAPE, np.complex64), np.eye(4)).to_filename(file)


def series(file):
    image = sitk.GetImageFromArray(VOLUME)
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(file))


def with_header(file, offset, values):
    whole(file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[offset : offset + values.nbytes] = values.tobytes()
    file.write_bytes(gzip.compress(bytes(content)))


def transform_without_numbers(file):
    """Over which ITK hangs: a row of the transform is zero, another one no number."""
    with_header(file, 280, np.float32([0, 0, 0, 0, np.nan, 0, 0, 0, 0, 0, 1, 0]))


def sheared(file):
    nibabel.Nifti1Image(VOLUME.T, [[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).to_filename(file)


def uncompressed(file):
    whole(file.with_name("plain.nii"))
    file.with_name("plain.nii").rename(file)


def constant(file, value):
    write(file, np.full(SHAPE, value, np.float32))


DAMAGES = {  # with what stands for an … of what is said
    "empty": (lambda file: file.write_bytes(b""), ""),
    "text": (lambda file: file.write_text("404: not found"), ""),
    "truncated": (truncated, ""),
    "no permission": (no_permission, "(Permission denied)"),
    "colours": (colours, "3 values"),
    "complex": (complex_numbers, "2 values"),
    "2-D": (lambda file: write(file, VOLUME[0]), "2 dimensions (10 x 9)"),
    "4-D": (series, "4 dimensions (10 x 9 x 8 x 2)"),
    "no spacing": (lambda file: with_header(file, 84, np.float32([0])), "1, 0, 1"),
    "transform": (transform_without_numbers, "(0, 0, 0, 0, nan, 0, 0, 0, 0, 0, 1,"),
    "sheared": (sheared, "(1, 0, 0.3, 0, 1, 0, 0, 0, 1)"),
    "uncompressed": (uncompressed, ""),
    "offset": (lambda file: with_header(file, 108, np.float32([200])), "(vox offset 200 too"),
    "negative offset": (lambda file: with_header(file, 108, np.float32([-400])), "(vox offset -400 too"),
    "infinite offset": (lambda file: with_header(file, 108, np.float32([np.inf])), "(cannot convert float"),
    "huge offset": (lambda file: with_header(file, 108, np.float32([1e30])), ""),
    "intercept": (
        lambda file: with_header(file, 112, np.float32([1, np.nan])),
        "(Valid slope but invalid intercept nan)",
    ),
    "slope": (lambda file: with_header(file, 112, np.float32([1e38])), ""),
    "NaN": (lambda file: constant(file, np.nan), ""),
    "infinite": (lambda file: constant(file, np.inf), ""),
    "enormous": (lambda file: with_header(file, 42, np.int16([30000] * 3)), "30000"),
}
FAULTS = of_test("test_bad_files.py::test_damaged_volume")


@pytest.fixture
def raw(make_dataset, monkeypatch):
    """A dataset with two labelled cases and an unlabelled one; nothing is done in other processes."""
    monkeypatch.setattr("nnunet_cmc.planners.intensities.default_num_processes", 1)
    monkeypatch.setattr(DefaultPreprocessor, "run", lambda *_: None)  # labelled cases: nnU-Net's way to the same reader
    images = {0: VOLUME, 1: VOLUME}
    return make_dataset({"good": (images, LABEL), "bad": (images, LABEL), "bad_u": ({1: VOLUME}, None)})


def preprocessed(raw):
    return raw.parents[1] / "preprocessed" / raw.name


def convert(raw, damage):
    damage(file := raw / "bad_mr.nii.gz")
    good, label = raw / "imagesTr" / "good_0000.nii.gz", raw / "labelsTr" / "good.nii.gz"
    cases = [Case("good", "1", {0: good, 1: good}, label), Case("bad", "2", {0: good, 1: file}, label)]
    write_raw_dataset(2, "New", ("CT", "MR"), {"liver": 1, "spleen": 2}, cases, processes=1)


def plan(raw, damage=lambda file: None):
    damage(raw / "imagesTr" / "bad_0001.nii.gz")
    preprocessed(raw).mkdir()
    fingerprint = {"spacings": [[1.0] * 3] * 2, "shapes_after_crop": [SHAPE] * 2}
    fingerprint |= {"median_relative_size_after_cropping": 1.0, "foreground_intensity_properties_per_channel": {}}
    (preprocessed(raw) / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    CMCPlannerNNUNetSmall(1).plan_experiment()


def preprocess(raw, damage):
    plan(raw)
    damage(raw / "imagesUn" / "bad_u_0001.nii.gz")
    CMCPreprocessor(verbose=False).run(1, "3d_fullres", "CMCNNUNetSmallPlans", 1)


def predict(raw, damage):
    """What nnUNetv2_predict does with a case before its network sees it."""
    plan(raw)
    damage(file := raw / "bad_0001.nii.gz")
    plans = PlansManager(str(preprocessed(raw) / "CMCNNUNetSmallPlans.json"))
    dataset_json = json.loads((raw / "dataset.json").read_text())
    CMCPreprocessor(verbose=False).run_case(
        [str(file)], None, plans, plans.get_configuration("3d_fullres"), dataset_json
    )


def evaluate(raw, damage):
    predictions = raw.parents[1] / "predictions"
    shutil.copytree(raw / "labelsTr", predictions)
    damage(predictions / "bad.nii.gz")
    arguments = ["-r", str(raw / "labelsTr"), "-p", str(predictions), "-d", "1", "-np", "1"]
    assert main(["evaluate", *arguments, "-o", str(raw.parents[1] / "results" / "new")]) == 1


PLANNED = {"CMCNNUNetSmallPlans.json", "dataset.json"}
STAGES = {stage.__name__: stage for stage in (convert, plan, preprocess, predict, evaluate)}


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize(("stage", "damage"), FAULTS)
def test_damaged_volume(raw, stage, damage, capsys):
    make, detail = DAMAGES[damage]
    try:
        STAGES[stage](raw, make)
    except ValueError as error:
        said = str(error)
    else:
        said = capsys.readouterr().err
    assert FAULTS[stage, damage].is_said_in(said)
    assert detail in said
    assert "bad" in said
    assert "good:" not in said
    assert not (raw.parent / "Dataset002_New").exists()
    assert not list(raw.parent.glob(".*"))
    allowed = {"dataset_fingerprint.json"} | (PLANNED if stage in ("preprocess", "predict") else set())
    assert {file.name for file in preprocessed(raw).rglob("*")} <= allowed
    assert not list((raw.parents[1] / "results").rglob("*.*"))


def test_the_table_says_what_every_stage_does_about_every_damage():
    assert FAULTS.keys() == {*product(STAGES, DAMAGES)}
