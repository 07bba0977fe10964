"""Which tensors of a CMCNet come from a file, from which of its tensors, and what is refused."""

import pytest
import released
import torch
from released import SAM, UNIVERSAL

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import FuseByMean, FuseSkips
from nnunet_cmc.networks.pretrained import load_pretrained
from nnunet_cmc.utils.checkpoints import load_checkpoint

NETWORKS = {
    "sam_med3d": {
        "encoder_kwargs": {
            "image_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "global_blocks": [1, 3],
            "window_size": 14, "out_channels": 32, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
        },
        "decoder_channels": [4, 4, 8],
    },
    "universal": {"encoder_kwargs": {"channels": [4, 8, 16, 32], "stem": 2}, "decoder_channels": [4, 8, 16]},
    "unet": {"encoder_kwargs": {"features_per_stage": [4, 8, 8], "blocks_per_stage": [1, 1, 1]}},
}  # fmt: skip


@pytest.fixture(params=[False, True], ids=["shared", "separate"])
def separate(request):
    return request.param


def build(encoder, modalities=2, classes=3, seed=0, separate=False, **encoder_kwargs):
    torch.manual_seed(seed)
    arguments = {**NETWORKS[encoder], "encoder_kwargs": NETWORKS[encoder]["encoder_kwargs"] | encoder_kwargs}
    net = CMCNet(modalities, classes, [16, 16, 16], encoder, **arguments)
    if separate:
        net.separate()
    return net


def encoded(net, x):
    """Maps of each modality, given the same scan."""
    if net.shared:
        return net.encoders[0](dict.fromkeys(range(net.num_modalities), x))
    return {m: encoder(x) for m, encoder in enumerate(net.encoders)}


def load(net, file, only=None, modalities=("CT", "MR"), checkpoint=None):
    return load_pretrained(net, checkpoint or load_checkpoint(file), file, modalities, only)


def changed(net, **kwargs):
    """Keys of ``net`` that differ from a fresh network of the same seed."""
    fresh = build(**kwargs).state_dict()
    return {key for key, value in net.state_dict().items() if not value.equal(fresh[key])}


def cube(channels=1):
    return torch.randn(2, channels, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def test_sam_med3d_fills_every_encoder(separate):
    net = build("sam_med3d", separate=separate)
    what, counts = load(net, SAM)
    assert what == "SAM-Med3D's image encoder"
    # 69 tensors; the position embedding and six tables of global blocks are resized from 32^3 to 16^3
    for name in ("CT", "MR"):
        if separate:
            assert counts[f"encoder of {name}"] == {"used": 62, "resized": 7, "at their start": 0}
            assert counts[f"decoder of {name}"]["used"] == 0
        else:  # the patch embedding, two norms of each block and two of the neck
            assert counts[f"encoder of {name}"] == {"used": 2 + 4 * 4 + 4, "resized": 0, "at their start": 0}
        assert counts[f"adapters of {name}"] == {"used": 0, "resized": 0, "at their start": 32}
        assert counts[f"convolutional path of {name}"]["used"] == 0
    if not separate:
        assert counts["encoder"] == {"used": 40, "resized": 7, "at their start": 0}
        assert counts["convolutional path"]["used"] == counts["decoder"]["used"] == 0
    assert sum(sum(part.values()) for part in counts.values()) == len(list(net.parameters()))
    assert changed(net, encoder="sam_med3d", separate=separate) <= {
        key for key in net.state_dict() if ".vit." in key and ".adapter." not in key
    } | {"pretrained"}
    assert net.pretrained
    official = released.sam_med3d(image_size=16, axis_order="zyx", adapters=False)(cube())[-1]
    for maps in encoded(net, cube()).values():
        torch.testing.assert_close(maps[-1], official)


def test_universal_fills_encoders_and_decoders_for_axes_zyx(separate):
    net = build("universal", separate=separate)
    what, counts = load(net, UNIVERSAL)
    assert what == "the Universal Model's U-Net"
    for name in ("CT", "MR"):
        if separate:
            assert counts[f"encoder of {name}"] == {"used": 32, "resized": 0, "at their start": 0}
            assert counts[f"decoder of {name}"] == {"used": 30, "resized": 0, "at their start": 2}  # seg_layers
        else:  # two convolutions with norms of the first stage, and six norms
            assert counts[f"encoder of {name}"] == {"used": 2 * 4 + 6 * 2, "resized": 0, "at their start": 0}
    if not separate:
        assert counts["encoder"] == {"used": 12, "resized": 0, "at their start": 0}
        assert counts["decoder"] == {"used": 30, "resized": 0, "at their start": 2}
    official = released.universal(axis_order="zyx")
    maps = official.encoder(cube())
    up = official.decoder(maps)
    for own in encoded(net, cube()).values():
        torch.testing.assert_close(own, maps)
    for decoder in net.decoders:
        torch.testing.assert_close(decoder.unet(maps)[-1], up[-1])
        torch.testing.assert_close(decoder(maps), [decoder.seg_layers(up[-1])])


def test_a_universal_file_without_decoder_fills_the_encoders(separate):
    checkpoint = load_checkpoint(UNIVERSAL)
    checkpoint["net"] = {key: value for key, value in checkpoint["net"].items() if ".up_tr" not in key}
    net = build("universal", separate=separate)
    _, counts = load(net, UNIVERSAL, checkpoint=checkpoint)
    assert counts["encoder of MR"]["at their start"] == 0
    decoder = counts["decoder of MR" if separate else "decoder"]
    assert decoder == {"used": 0, "resized": 0, "at their start": 32}


@pytest.mark.parametrize(("encoder", "file"), [("sam_med3d", SAM), ("universal", UNIVERSAL)])
def test_one_modality_only(encoder, file, separate):
    """Its own parts, and what the modalities share."""
    net, everything = (build(encoder, separate=separate) for _ in range(2))
    _, counts = load(net, file, only="mr")
    load(everything, file)
    filled = {part for part, outcomes in counts.items() if outcomes["used"]}
    assert filled <= ({"encoder of MR", "decoder of MR"} if separate else {"encoder", "encoder of MR", "decoder"})
    torch.testing.assert_close(encoded(net, cube())[1], encoded(everything, cube())[1])
    if separate:
        assert {key.split(".")[1] for key in changed(net, encoder=encoder, separate=True) - {"pretrained"}} == {"1"}
    else:
        assert not {key for key in changed(net, encoder=encoder) if ".copies.0." in key}


def saved(net, names, **more):
    """What a trainer saves of ``net``."""
    return {"network_weights": net.state_dict(), "init_args": {"dataset_json": {"channel_names": names}}, **more}


def test_equal_names_of_channels_are_told_apart_as_in_the_dataset():
    source, net = build("unet", modalities=3, seed=7), build("unet", modalities=3)
    checkpoint = saved(source, {"0": "CT", "1": "MR", "2": "CT"})
    load(net, "net.pth", None, ("CT 2", "MR", "CT 0"), checkpoint)
    for m, channel in enumerate((2, 1, 0)):
        mine, theirs = (
            [v for k, v in n.state_dict().items() if f".copies.{i}." in k] for n, i in ((net, m), (source, channel))
        )
        assert mine
        assert all(map(torch.equal, mine, theirs))


@pytest.mark.parametrize("encoder", NETWORKS)
def test_a_cmcnet_fills_modalities_of_the_same_name_but_nothing_of_classes(encoder, separate):
    source = build(encoder, modalities=3, classes=5, seed=7, separate=separate)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)  # modalities are not alike
    checkpoint = saved(source, {"0": "mr", "1": "PET", "2": "CT"})
    if encoder == "unet":
        dataset_json = {"channel_names": dict.fromkeys("012", "CT"), "cmc": {"modalities": ["mr", "PET", "CT"]}}
        checkpoint["init_args"] = {"dataset_json": dataset_json}
    net = build(encoder, separate=separate)
    what, counts = load(net, "net.pth", checkpoint=checkpoint)
    assert what == "a CMCNet"
    partly = {part for part, outcomes in counts.items() if outcomes["at their start"]}
    assert partly == ({"decoder of CT", "decoder of MR"} if separate else {"decoder"})
    seg_layers = 2 * (2 if encoder == "unet" else 1)
    assert all(counts[part]["at their start"] == seg_layers for part in partly)

    found, expected = encoded(net, cube()), encoded(source, cube())
    for m, channel in {0: 2, 1: 0}.items():
        torch.testing.assert_close(found[m], expected[channel])
        for part in ("mia.projections", "mia.attentions", *(["merges"] if separate else [])):
            own, other = (n.get_submodule(f"{part}.{i}").state_dict() for n, i in ((net, m), (source, channel)))
            assert all(own[key].equal(other[key]) for key in other)
    fresh = build(encoder, separate=separate).state_dict()
    of_classes = [key for key in fresh if ".seg_layers." in key]
    assert of_classes
    assert all(net.state_dict()[key].equal(fresh[key]) for key in of_classes)


def test_a_cmcnet_with_one_common_modality_fills_that(separate):
    checkpoint = saved(build("unet", seed=7, separate=separate), {"0": "T1", "1": "CT"})
    checkpoint["network_weights"]["mia.bias"] += 1
    net = build("unet", separate=separate)
    _, counts = load(net, "net.pth", checkpoint=checkpoint)
    assert counts["encoder of CT"]["at their start"] == 0
    assert counts["encoder of MR"]["used"] == 0
    assert separate or counts["encoder"]["at their start"] == 0
    assert not net.mia.bias.any()
    with pytest.raises(ValueError, match=r"net.pth has the modalities T1, CT, but not MR: use another file"):
        load(net, "net.pth", only="MR", checkpoint=checkpoint)


def test_a_cmcnet_of_another_arrangement_is_refused(separate):
    checkpoint = saved(build("unet", separate=not separate), {"0": "CT"}, trainer_name="CMCTrainerOther")
    has, wants = "one encoder and one decoder of all modalities", "an encoder and a decoder of each modality"
    has, wants = (has, wants) if separate else (wants, has)
    sentence = f"net.pth has {has}, and the network to fill {wants}: name the trainer of .*, CMCTrainerOther, with -tr"
    with pytest.raises(ValueError, match=sentence):
        load(build("unet", separate=separate), "net.pth", checkpoint=checkpoint)


def test_what_another_recipe_lacks_stays_at_its_start():
    """MIA and skip fusion are parts of some recipes; their absence is in the counts."""
    full, plain, again = (build("unet", modalities=3, seed=seed, separate=True) for seed in (0, 7, 7))
    FuseSkips()(full)
    FuseSkips()(again)
    FuseByMean()(plain)
    names = {"0": "mr", "1": "PET", "2": "CT"}
    _, counts = load(full, "net.pth", checkpoint=saved(plain, names), modalities=("mr", "PET", "CT"))
    assert counts["skip fusion"]["used"] == 0
    assert counts["fusion"]["used"] == 3, "the merges, and nothing of MIA"
    _, counts = load(plain, "net.pth", checkpoint=saved(full, names), modalities=("mr", "PET", "CT"))
    assert counts["encoder of CT"]["at their start"] == 0
    assert counts["fusion"] == {"used": 3, "resized": 0, "at their start": 0}
    for parameter in full.skip_fusion.parameters():
        torch.nn.init.normal_(parameter)
    load(again, "net.pth", checkpoint=saved(full, names), modalities=("CT", "PET", "mr"))
    for m in range(3):
        skip = full.skip_fusion.projections[2 - m][0].weight
        assert again.skip_fusion.projections[m][0].weight.equal(skip)


def drop(checkpoint, where, key):
    return {**checkpoint, where: {k: v for k, v in checkpoint[where].items() if key not in k}}


CMC = saved(build("unet"), {"0": "CT", "1": "MR"})
FLAT_2D = {"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}


@pytest.mark.parametrize(
    ("net", "checkpoint", "sentence"),
    [
        ({"encoder": "unet"}, SAM, "is SAM-Med3D's, and the encoder of the plans is not: plan with -pl CMCPlanner"),
        ({"encoder": "universal"}, SAM, "is SAM-Med3D's, and the encoder of the plans is not"),
        ({"encoder": "sam_med3d"}, UNIVERSAL, "is the Universal Model's, .* plan with -pl CMCPlannerUniversal"),
        ({"encoder": "universal"}, CMC, r"holds no encoders of these plans: 52 of its tensors are missing"),
        ({"encoder": "unet", "features_per_stage": [4, 9, 9]}, CMC, "encoders of these plans: .* another shape"),
        (
            {"encoder": "sam_med3d", "embed_dim": 24, "out_channels": 16},
            SAM,
            "does not fit the encoder of the plans: embed_dim is 48 and not 24, out_channels is 32 and not 16",
        ),
        ({"encoder": "sam_med3d", "global_blocks": [3]}, SAM, r"global_blocks is \[1, 3\] and not \[3\]"),
        ({"encoder": "sam_med3d", "depth": 5}, SAM, "depth is 4 and not 5"),
        ({"encoder": "universal", "stem": 3}, UNIVERSAL, "stem is 2 and not 3"),
        ({"encoder": "sam_med3d"}, drop(load_checkpoint(SAM), "model_state_dict", "blocks.3.norm2"), "2 .* missing"),
        ({"encoder": "universal"}, drop(load_checkpoint(UNIVERSAL), "net", "down_tr64.ops.1.bn1"), "2 .* missing"),
        ({"encoder": "universal"}, drop(load_checkpoint(UNIVERSAL), "net", "up_tr64.up_conv"), "2 .* missing"),
        ({"encoder": "unet"}, {"network_weights": {"encoder.stages.0": torch.zeros(1)}}, "none of the checkpoints"),
        ({"encoder": "sam_med3d"}, {"net": {"module.backbone.swinViT.patch_embed.proj.weight": 0}}, "none of the"),
        ({"encoder": "sam_med3d"}, {"model_state_dict": {}}, r"none of the checkpoints .* \(sam_med3d_turbo.pth\)"),
        ({"encoder": "sam_med3d"}, FLAT_2D, r"2-D SAM \(patch kernel \(768, 3, 16, 16\)\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_loaded(tmp_path, net, checkpoint, sentence):
    file = checkpoint
    if isinstance(checkpoint, dict):
        file = tmp_path / "given.pth"
        torch.save(checkpoint, file)
    network = build(**net)
    with pytest.raises(ValueError, match=sentence) as error:
        load(network, file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not changed(network, **net)


def test_a_modality_that_is_not_there():
    with pytest.raises(ValueError, match="There is no modality PET; the dataset has CT, MR"):
        load(build("sam_med3d"), SAM, only="PET")
