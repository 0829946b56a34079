"""Configuration keys of generative learning, the group `generation`."""

from jaxvision.config import FREE, Key

KEYS = {
    "discriminator": Key("dcgan_discriminator", "the network that judges; a name of `info models`"),
    "discriminator_options": Key(FREE, "fields of it to override"),
}
