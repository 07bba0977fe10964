"""From a file of pretrained weights through `nnunet_cmc weights` and nnU-Net's own loading to a trained model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from short_trainers import short

from nnunet_cmc.commands.main import main

PEER = "auxiliary.peer.network."
FIXTURES = Path(__file__).parents[1] / "networks" / "fixtures"
SOURCES = {
    "sam_med3d": (
        FIXTURES / "sam_tiny.pth",
        {
            "image_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "global_blocks": [1, 3],
            "window_size": 14, "out_channels": 32, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
        },
        [4, 4, 8],
    ),
    "universal": (FIXTURES / "unet_tiny_base2.pth", {"channels": [4, 8, 16, 32], "stem": 2}, [4, 8, 16]),
}  # fmt: skip


def plan(cubes, encoder):
    """Plan ``encoder`` on disk, as `nnunet_cmc weights` reads it, and for the trainers of ``cubes``."""
    _, encoder_kwargs, decoder_channels = SOURCES[encoder]
    arch = cubes.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arch.update(encoder=encoder, encoder_kwargs=encoder_kwargs, decoder_channels=decoder_channels)
    (cubes.folder / "CMCTinyPlans.json").write_text(json.dumps(cubes.plans))
    (cubes.folder / "dataset.json").write_text(json.dumps(cubes.dataset_json))


def weights(source, out, recipe):
    assert main(["weights", str(source), "-d", "901", "-p", "CMCTinyPlans", "-tr", recipe, "-o", str(out)]) == 0
    return out


def pretrained(trainer, file):
    """As nnUNetv2_train -pretrained_weights does it."""
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(file))
    return trainer


def log_of(trainer) -> str:
    return Path(trainer.log_file).read_text()


def state_of(trainer) -> dict:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


@pytest.fixture(params=["CMCTrainer", "CMCTrainerPaper"])
def recipe(request):
    """Of each arrangement: a shared network, and an encoder and a decoder of each modality."""
    return request.param


@pytest.fixture(params=SOURCES)
def planned(request, registered):
    plan(registered, request.param)
    registered.source = SOURCES[request.param][0]
    return registered


def test_it_trains_resumes_and_predicts_from_converted_weights(planned, recipe, tmp_path):
    init = weights(planned.source, tmp_path / "init.pth", recipe)
    trainer = pretrained(planned.trainer(short(recipe)), init)
    loaded = torch.load(init, weights_only=True)["network_weights"]
    assert all(
        value.equal(loaded[key]) for key, value in trainer.network.state_dict().items() if ".seg_layers." not in key
    )
    trainer.save_every = 1
    end = trainer.on_epoch_end

    def stop_after_first_epoch():
        end()
        raise KeyboardInterrupt

    trainer.on_epoch_end = stop_after_first_epoch
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    assert "from pretrained weights: Adam at the fine-tuning learning rate 1e-05" in log_of(trainer)
    first = trainer.logger.get_value("lrs", 0)
    assert 0 < first <= 1e-5
    assert all(group["weight_decay"] == 0 for group in trainer.optimizer.param_groups)
    moved = max((value - loaded[key]).abs().max().item() for key, value in state_of(trainer).items() if "enc" in key)
    assert 0 < moved < 1e-4

    resumed = planned.trainer(short(recipe))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    resumed.run_training()
    assert "from pretrained weights: Adam" in log_of(resumed)
    assert 0 < resumed.logger.get_value("lrs", 1) <= 1e-5
    assert all(group["weight_decay"] == 0 for group in resumed.optimizer.param_groups)

    checkpoint = torch.load(Path(resumed.output_folder) / "checkpoint_final.pth", weights_only=False)
    manager = PlansManager(checkpoint["init_args"]["plans"])
    net = resumed.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 2, 2, False).eval()
    net.load_state_dict(checkpoint["network_weights"])
    x = torch.randn(1, 2, 16, 16, 16)
    x[:, 1] = 0
    with torch.no_grad():
        assert net(x).isfinite().all()


def test_a_model_of_ours_is_a_source_too(planned, recipe, tmp_path):
    trainer = planned.trainer(short(recipe))
    trainer.run_training()
    assert "Training from scratch: AdamW at the planned learning rate 0.01" in log_of(trainer)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    init = torch.load(weights(final, tmp_path / "init.pth", recipe), weights_only=True)["network_weights"]
    for name, value in trainer.network.state_dict().items():
        if ".seg_layers." not in name and not name.endswith("reliability") and name != "pretrained":
            assert value.equal(init[name]), name
    assert init["pretrained"]
    assert not any(value.any() for name, value in init.items() if name.endswith("reliability"))


def test_a_peer_starts_from_the_file_as_well_with_a_decoder_of_its_own(registered, tmp_path, capsys):
    plan(registered, "sam_med3d")
    file = weights(SOURCES["sam_med3d"][0], tmp_path / "init.pth", "CPSTrainer")
    init = torch.load(file, weights_only=True)["network_weights"]
    peer = {name.removeprefix(PEER): value for name, value in init.items() if name.startswith(PEER)}
    assert sorted([*peer, *(PEER + name for name in peer)]) == sorted(init)
    from_file = [name for name in peer if ".attn.qkv.weight" in name]
    assert from_file
    assert all(init[name].equal(peer[name]) for name in from_file)
    assert not any(init[name].equal(value) for name, value in peer.items() if name.endswith("ups.0.weight"))
    assert re.search(r"^peer +84 +7 +129$", capsys.readouterr().out, re.MULTILINE)
    pretrained(registered.trainer(short("CPSTrainer")), file)


def test_skip_fusion_and_deep_supervision_take_the_file_of_their_trainer(registered, tmp_path, capsys):
    recipe = "CMCTrainer_separate"
    plan(registered, "sam_med3d")
    init = weights(SOURCES["sam_med3d"][0], tmp_path / "init.pth", recipe)
    trainer = pretrained(registered.trainer(short(recipe)), init)
    skips = trainer.network.skip_fusion.state_dict()
    assert all(value.eq(0).all() for value in skips.values()), "the file teaches them nothing"
    for value in skips.values():
        value.normal_()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again = torch.load(weights(tmp_path / "checkpoint.pth", tmp_path / "again.pth", recipe), weights_only=True)
    assert all(again["network_weights"][f"skip_fusion.{name}"].equal(value) for name, value in skips.items())

    arguments = [tmp_path / "checkpoint.pth", "-d", "901", "-p", "CMCTinyPlans", "-o", tmp_path / "shared.pth"]
    assert main(["weights", *map(str, arguments)]) == 1
    assert "has an encoder and a decoder of each modality, and the network to fill one" in capsys.readouterr().err


def test_adapters_train_alone_and_the_rest_costs_no_optimizer_state(registered, tmp_path):
    Adapters = short("CMCTrainerPaper_adapters")
    plan(registered, "sam_med3d")
    init = weights(SOURCES["sam_med3d"][0], tmp_path / "init.pth", "CMCTrainerPaper_adapters")
    trainer = pretrained(registered.trainer(Adapters), init)
    before = state_of(trainer)
    trainer.run_training()
    moved = {name for name, value in state_of(trainer).items() if not value.equal(before[name])}
    of_vit = {name for name in before if ".vit." in name}
    trains = {name for name in of_vit if re.search(r"adapter|norm|neck\.[13]\.", name)}
    assert moved & of_vit == trains
    assert {name for name in before if ".path." in name} <= moved

    frozen = {p for p in trainer.network.parameters() if not p.requires_grad}
    assert len(frozen) == len(of_vit - trains)
    assert not frozen & set(trainer.optimizer.state)
    assert not frozen & {p for group in trainer.optimizer.param_groups for p in group["params"]}
    log = log_of(trainer)
    assert "from pretrained weights: AdamW at the planned learning rate 0.01" in log
    count = sum(p.numel() for p in frozen)
    assert re.search(rf"[\d,]+ parameters train, {count:,} are frozen", log)

    checkpoint = Path(trainer.output_folder) / "checkpoint_final.pth"
    again = registered.trainer(Adapters)
    again.load_checkpoint(str(checkpoint))
    assert np.isfinite(again.optimizer.param_groups[0]["lr"])
    with pytest.raises(ValueError, match=r"freezes the encoders, whose weights are random: .* -pretrained_weights"):
        registered.trainer(Adapters).run_training()


def test_adapters_need_an_encoder_that_has_them(registered):
    with pytest.raises(ValueError, match="which the encoder of these plans is not: train with"):
        registered.trainer(short("CMCTrainerPaper_adapters")).initialize()
    plan(registered, "sam_med3d")
    kwargs = registered.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["encoder_kwargs"]
    registered.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["encoder_kwargs"] = {
        **kwargs,
        "adapters": False,
    }
    with pytest.raises(ValueError, match="has no adapters to train"):
        registered.trainer(short("CMCTrainerPaper_adapters")).initialize()
