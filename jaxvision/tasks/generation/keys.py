"""Configuration keys of generative adversarial learning, the group `generation`."""

from jaxvision.config import FREE, Key
from jaxvision.tasks import judging_keys

KEYS = {
    "discriminator": Key(
        "dcgan_discriminator", "the network that says what is real; a name of `info models`"
    ),
    "discriminator_options": Key(FREE, "fields of it to override"),
    "gradient_penalty": Key(
        0.0, "weight of the squared gradient of real images' logits, R1; 0: none", least=0
    ),
    "gradient_penalty_every": Key(16, "steps between two updates by it", least=1),
    "path_length": Key(
        0.0, "weight of how much lengths of the generator's Jacobian differ; 0: none", least=0
    ),
    "path_length_every": Key(4, "steps between two updates by it", least=1),
    "path_length_shrink": Key(2, "it sees a batch that is so many times smaller", least=1),
    "path_length_decay": Key(
        0.01, "part of a batch in the mean length that others are compared with", above=0, below=1
    ),
    "style_mixing": Key(0.0, "part of the images that are made of two styles", least=0, below=1),
    **judging_keys.KEYS,
}
