"""`jaxvision.models.backbones.mixer`."""

from parity.case import Case

CASES = {
    "mixer_s16_224": Case(
        (4, 3, 64, 48),
        options={"depth": 2},
        features=("blocks.0", "blocks.1"),
        gradients=True,
    )
}
PARAMETERS = {
    "mixer_s32_224": 19_104_624,
    "mixer_s16_224": 18_528_264,
    "mixer_b32_224": 60_293_428,
    "mixer_b16_224": 59_880_472,
    "mixer_l32_224": 206_939_264,
    "mixer_l16_224": 208_196_168,
}


def build(name, case):
    from parity.references import timm

    model = timm().models.mlp_mixer.MlpMixer
    return model(
        case.classes, case.image[2:], patch_size=16, num_blocks=case.options["depth"], embed_dim=512
    )


def feature_map(value, case):
    """Tokens [b, n, c] on the grid."""
    return value.unflatten(1, (case.image[2] // 16, case.image[3] // 16))
