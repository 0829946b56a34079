"""Configuration keys of restoration, the group `restoration`."""

from jaxvision.config import FREE, Key

KEYS = {
    "loss": Key("l1", "of pixels: l1, or mse as the paper", choices=("l1", "mse")),
    "pixel_weight": Key(1.0, "weight of that loss", least=0),
    "discriminator": Key("", "the network that says what is a photograph; empty: none"),
    "discriminator_options": Key(FREE, "fields of it to override"),
    "adversarial_weight": Key(1e-3, "weight of the discriminator's opinion", least=0),
    "perceptual.network": Key("", "whose maps of both images are compared; empty: none"),
    "perceptual.options": Key(FREE, "fields of it to override"),
    "perceptual.weights": Key("", "its trained weights, as model.weights"),
    "perceptual.layer": Key("", "whose output is compared, as `inspect` lists them"),
    "perceptual.weight": Key(0.006, "weight of the maps' mean squared difference", least=0),
    "perceptual.mean": Key([0.485, 0.456, 0.406], "per-channel mean of its images in 0..1"),
    "lpips.network": Key("", "LPIPS in evaluation: alex, vgg or squeeze; empty: none"),
    "lpips.weights": Key("", "its file of the package lpips, alex.pth and so on"),
    "lpips.network_weights": Key("default", "those of the network, as model.weights"),
    "perceptual.std": Key([0.229, 0.224, 0.225], "per-channel standard deviation", above=0),
}
