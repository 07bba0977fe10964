"""nnunet_cmc weights: the file it writes, what it prints, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from plans import make_plans

from nnunet_cmc.commands.main import main

FIXTURES = Path(__file__).parents[1] / "networks" / "fixtures"
SAM, UNIVERSAL = FIXTURES / "sam_tiny.pth", FIXTURES / "unet_tiny_base2.pth"


SAM_KWARGS = {
    "image_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "global_blocks": [1, 3],
    "window_size": 14, "out_channels": 32, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
}  # fmt: skip


def ours(name, encoder, kwargs, decoder_channels):
    network = {"encoder": encoder, "encoder_kwargs": kwargs, "decoder_channels": decoder_channels}
    return make_plans({"patch_size": [16, 16, 16], **network}, name)


PLANS = [
    ours("CMCPlans", "sam_med3d", SAM_KWARGS, [4, 4, 8]),
    ours("CMCUniversalPlans", "universal", {"channels": [4, 8, 16, 32], "stem": 2}, [4, 8, 16]),
    make_plans(plans_name="nnUNetPlans", architecture={"network_class_name": "PlainConvUNet"}),
]


@pytest.fixture
def dataset(nnunet_folders):
    """A preprocessed dataset that is planned with tiny encoders, and the folder in which a user works."""
    folder = nnunet_folders / "preprocessed" / "Dataset001_Test"
    folder.mkdir()
    for plans in PLANS:
        (folder / f"{plans['plans_name']}.json").write_text(json.dumps(plans))
    dataset_json = {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    return nnunet_folders


def weights(file, output, *more, plans="CMCPlans"):
    return main(["weights", str(file), "-d", "1", "-p", plans, "-o", str(output), *map(str, more)])


def written(file):
    return torch.load(file, weights_only=True)["network_weights"]


TABLES = {
    "CMCTrainer": [
        ["encoder", "40", "7", "0"],
        ["encoder", "of", "CT", "22", "0", "0"],
        ["adapters", "of", "CT", "0", "0", "32"],
        ["convolutional", "path", "of", "CT", "0", "0", "12"],
        ["convolutional", "path", "0", "0", "4"],
        ["decoder", "0", "0", "22"],
        ["fusion", "0", "0", "15"],
    ],
    "CMCTrainerPaper": [
        ["encoder", "of", "CT", "62", "7", "0"],
        ["adapters", "of", "CT", "0", "0", "32"],
        ["convolutional", "path", "of", "CT", "0", "0", "16"],
        ["decoder", "of", "CT", "0", "0", "18"],
        ["fusion", "0", "0", "17"],
    ],
}


@pytest.mark.parametrize("trainer", TABLES)
def test_a_sam_med3d_file(dataset, capsys, trainer):
    out = dataset / "init.pth"
    assert weights(SAM, out, "-tr", trainer) == 0
    printed = capsys.readouterr().out
    assert f"{SAM} is SAM-Med3D's image encoder" in printed
    rows = [line.split() for line in printed.splitlines()[2:-4]]
    assert [row for row in rows if "MR" not in row] == TABLES[trainer]
    assert f"-p CMCPlans -tr {trainer} -pretrained_weights {out}" in printed
    state = written(out)
    official = torch.load(SAM, weights_only=False)["model_state_dict"]["image_encoder.blocks.2.mlp.lin1.weight"]
    (key,) = (key for key in state if key.startswith("encoders.0.") and key.endswith("vit.blocks.2.mlp.lin1.weight"))
    assert state[key].equal(official)
    assert state["pretrained"]
    assert list(dataset.glob("*.tmp")) == []


def test_a_universal_file_and_the_seed_of_the_rest(dataset, capsys):
    runs = {}
    for name, seed in {"default": (), "zero": ("--seed", 0), "one": ("--seed", 1)}.items():
        assert weights(UNIVERSAL, dataset / name, *seed, plans="CMCUniversalPlans") == 0
        runs[name] = written(dataset / name)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["decoder", "30", "0", "6"] in rows
    assert all(value.equal(runs["zero"][key]) for key, value in runs["default"].items())
    seeded = {key for key, value in runs["one"].items() if not value.equal(runs["zero"][key])}
    assert {key.split(".")[0] for key in seeded} == {"mia", "decoders"}
    assert all(key.startswith("mia") or ".seg_layers." in key for key in seeded)


def test_one_modality(dataset):
    """Of separate encoders and decoders only its own are filled, of a shared network its own parts and the shared."""
    for trainer in TABLES:
        everything, mr = (dataset / f"{trainer}_{name}.pth" for name in ("all", "mr"))
        assert weights(SAM, everything, "-tr", trainer) == 0
        assert weights(SAM, mr, "--modality", "MR", "-tr", trainer) == 0
        everything, mr = written(everything), written(mr)
        different = {key for key in everything if not everything[key].equal(mr[key])}
        assert different
        own = "encoders.0." if trainer == "CMCTrainerPaper" else ".copies.0."
        assert all(own in key for key in different)


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"plans": "CMCNNUNetSmallPlans"}, "CMCNNUNetSmallPlans.json: plan first, such as with nnUNetv2_plan_and"),
        ({"plans": "nnUNetPlans"}, "cannot train the plans nnUNetPlans"),
        ({"plans": "CMCUniversalPlans"}, "is SAM-Med3D's, and the encoder of the plans is not"),
        ({"more": ["-c", "2d"]}, "have no configuration 2d, only 3d_fullres"),
        ({"more": ["--modality", "PET"]}, "There is no modality PET; the dataset has CT, MR"),
        ({"more": ["-tr", "CMCTrianer"]}, "There is no trainer CMCTrianer: take one of CMCTrainer, "),
        ({"more": ["-tr", "nnUNetTrainer_cmcbudget"]}, "does not train a network of nnunet_cmc"),
        ({"more": ["-d", "7"]}, "There is no dataset 7"),
        ({"file": "absent.pth"}, "There is no checkpoint file"),
        ({"file": "truncated.pth"}, "something else or truncated"),
        ({"file": "text.pth"}, "something else or truncated"),
        ({"file": "empty.pth"}, "something else or truncated"),
        ({"file": "forbidden.pth"}, "forbidden.pth: Permission denied: change its permissions"),
        ({"file": "2d.pth"}, "is a 2-D SAM"),
        ({"output": "nowhere/init.pth"}, "There is no folder"),
        ({"file": "copy.pth", "output": "copy.pth"}, "would replace the pretrained weights"),
    ],
)
def test_what_cannot_be_converted_is_told_in_a_sentence_and_nothing_is_written(dataset, capsys, arguments, sentence):
    (dataset / "truncated.pth").write_bytes(SAM.read_bytes()[:5000])
    (dataset / "text.pth").write_text("404: not found")
    (dataset / "empty.pth").touch()
    (dataset / "forbidden.pth").touch(mode=0o200)
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}, dataset / "2d.pth")
    shutil.copy(SAM, dataset / "copy.pth")
    before = {file: file.stat().st_size for file in dataset.iterdir()}
    file = dataset / arguments["file"] if "file" in arguments else SAM
    output = dataset / arguments.get("output", "init.pth")
    assert weights(file, output, *arguments.get("more", []), plans=arguments.get("plans", "CMCPlans")) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert {file: file.stat().st_size for file in dataset.iterdir()} == before


def test_a_disk_that_is_full_or_cannot_be_written_to(dataset, capsys, full_disk, ordinary_user):
    (folder := dataset / "folder").mkdir()
    with full_disk(9000):
        assert weights(SAM, folder / "init.pth") == 1
    said = "init.pth: cannot be written, most likely for lack of space: free some, or choose another disk"
    assert said in capsys.readouterr().err
    folder.chmod(0o555)
    assert weights(SAM, folder / "init.pth") == 1
    assert "Permission denied: change its permissions, or name another place." in capsys.readouterr().err
    assert not list(folder.iterdir())
