"""VQ-VAE in PyTorch: section 4.1's network of van den Oord et al. 2017, pythae's quantizers."""

from torch import nn
from torch.nn.functional import relu


class Residual(nn.Module):
    def __init__(self, width, inside):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inside, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(inside, width, 1, bias=False)

    def forward(self, x):
        return x + self.conv2(relu(self.conv1(relu(x))))


class Encoder(nn.Module):
    def __init__(self, channels, hidden, residual, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden // 2, 4, 2, 1)
        self.conv2 = nn.Conv2d(hidden // 2, hidden, 4, 2, 1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(hidden, residual) for _ in range(blocks)))

    def forward(self, x):
        x = self.conv3(relu(self.conv2(relu(self.conv1(x)))))
        return relu(self.blocks(x))


class Decoder(nn.Module):
    def __init__(self, channels, hidden, residual, blocks, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(hidden, residual) for _ in range(blocks)))
        self.deconv1 = nn.ConvTranspose2d(hidden, hidden // 2, 4, 2, 1)
        self.deconv2 = nn.ConvTranspose2d(hidden // 2, channels, 4, 2, 1)

    def forward(self, x):
        x = relu(self.blocks(self.conv1(x)))
        return self.deconv2(relu(self.deconv1(x)))


class VQVAE(nn.Module):
    def __init__(
        self, channels=3, hidden=256, residual=256, blocks=2, codes=512, width=64,
        moving_average=False, decay=0.99,
    ):  # fmt: skip
        super().__init__()
        from parity.references import pythae

        pythae()
        from pythae.models import VQVAEConfig
        from pythae.models.vq_vae.vq_vae_utils import Quantizer, QuantizerEMA

        config = VQVAEConfig(
            num_embeddings=codes, use_ema=moving_average, decay=decay, commitment_loss_factor=0.25
        )
        config.embedding_dim = width
        self.encoder = Encoder(channels, hidden, residual, blocks)
        self.pre_quantizer = nn.Conv2d(hidden, width, 1)
        self.quantizer = (QuantizerEMA if moving_average else Quantizer)(config)
        self.decoder = Decoder(channels, hidden, residual, blocks, width)

    def encode(self, x):
        return self.pre_quantizer(self.encoder(x))

    def forward(self, x):
        found = self.quantizer(self.encode(x).permute(0, 2, 3, 1))
        return self.decoder(found.quantized_vector), found
