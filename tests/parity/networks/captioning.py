"""Captioning networks in PyTorch, from their papers, on layers of torch.nn.

Each is called with images and tokens [b, t] and returns a dict: `logits` [b, t, v], and what else
has a loss. An encoder gives a map [b, c, h, w], or tokens [b, n, c].
"""

import math

import torch
from torch import nn


def places_of(features):
    """[b, c, h, w] to [b, h * w, c]."""
    return features.flatten(2).transpose(1, 2)


class Nic(nn.Module):
    """Vinyals et al. 2015: an LSTM reads the image, then the words."""

    def __init__(self, encoder, features, classes, width, hidden):
        super().__init__()
        self.encoder, self.decoder = encoder, nn.Module()
        self.decoder.project = nn.Linear(features, width)
        self.decoder.embed = nn.Embedding(classes, width)
        self.decoder.lstm = nn.LSTMCell(width, hidden)
        self.decoder.classifier = nn.Linear(hidden, classes)

    def forward(self, image, tokens):
        own = self.decoder
        state, logits = own.lstm(own.project(self.encoder(image).mean((2, 3)))), []
        for word in own.embed(tokens).unbind(1):
            state = own.lstm(word, state)
            logits.append(own.classifier(state[0]))
        return {"logits": torch.stack(logits, 1)}


class CnnRnn(nn.Module):
    """An Elman RNN that sees an MLP of the whole map at every step, and starts from it."""

    def __init__(self, encoder, features, classes, width, hidden):
        super().__init__()
        self.encoder, self.decoder = encoder, nn.Module()
        self.decoder.context = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.decoder.embed = nn.Embedding(classes, width)
        self.decoder.rnn = nn.RNNCell(width + hidden, hidden)
        self.decoder.classifier = nn.Linear(hidden, classes)

    def forward(self, image, tokens):
        own = self.decoder
        context = own.context(places_of(self.encoder(image)).flatten(1))
        h, logits = context, []
        for word in own.embed(tokens).unbind(1):
            h = own.rnn(torch.cat([word, context], 1), h)
            logits.append(own.classifier(h))
        return {"logits": torch.stack(logits, 1)}


class ShowAttendTell(nn.Module):
    """Xu et al. 2015. Hard attention looks at the likeliest place, in training at the second."""

    def __init__(self, encoder, features, classes, width, hidden, attention, hard=False):
        super().__init__()
        self.encoder, self.decoder, self.hard = encoder, nn.Module(), hard
        own = self.decoder
        own.embed = nn.Embedding(classes, width)
        own.init_h, own.init_c = nn.Linear(features, hidden), nn.Linear(features, hidden)
        own.attend_places = nn.Linear(features, attention)
        own.attend_state = nn.Linear(hidden, attention, bias=False)
        own.attend_score = nn.Linear(attention, 1, bias=False)
        own.gate = nn.Linear(hidden, 1)
        own.lstm = nn.LSTMCell(width + features, hidden)
        own.from_state = nn.Linear(hidden, width)
        own.from_context = nn.Linear(features, width, bias=False)
        own.classifier = nn.Linear(width, classes)

    def places(self, image):
        return places_of(self.encoder(image))

    def forward(self, image, tokens):
        own, places, found = self.decoder, self.places(image), []
        mean = places.mean(1)
        h, c = own.init_h(mean).tanh(), own.init_c(mean).tanh()
        for word in own.embed(tokens).unbind(1):
            mixed = own.attend_places(places) + own.attend_state(h)[:, None]
            weights = own.attend_score(mixed.tanh())[..., 0].softmax(1)
            step = {"attention": weights}
            looked = weights
            if self.hard:
                place = weights.argsort(1)[:, -2 if self.training else -1]
                likelihood = weights.log()
                step["attention_log_probability"] = likelihood[torch.arange(len(place)), place]
                step["attention_entropy"] = -(weights * likelihood).sum(1)
                looked = nn.functional.one_hot(place, weights.shape[1]).to(weights.dtype)
            context = own.gate(h).sigmoid() * (looked[..., None] * places).sum(1)
            h, c = own.lstm(torch.cat([word, context], 1), (h, c))
            deep = (word + own.from_state(h) + own.from_context(context)).tanh()
            found.append({"logits": own.classifier(deep), **step})
        return {name: torch.stack([one[name] for one in found], 1) for name in found[0]}


class SelfAttention(nn.Module):
    """Zhang et al. 2019: each place of a map looks at all of them."""

    def __init__(self, channels):
        super().__init__()
        self.query, self.key = (nn.Linear(channels, channels // 8) for _ in range(2))
        self.value = nn.Linear(channels, channels // 2)
        self.out = nn.Linear(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, places):
        weights = (self.query(places) @ self.key(places).transpose(1, 2)).softmax(-1)
        return places + self.gamma * self.out(weights @ self.value(places))


class CnnSelfAttention(ShowAttendTell):
    def __init__(self, encoder, features, classes, width, hidden, attention):
        super().__init__(encoder, features, classes, width, hidden, attention)
        self.self_attention = SelfAttention(features)

    def places(self, image):
        return self.self_attention(super().places(image))


def sines(places, channels):
    """Sines and cosines in turn of positions [n] at falling frequencies."""
    rates = 10_000 ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = places[:, None] / rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class TransformerCaptioner(nn.Module):
    """torch.nn.TransformerDecoder over tokens, or over places of a map with sines."""

    def __init__(self, encoder, features, classes, width, depth, heads, hidden, longest, pre_norm):
        super().__init__()
        self.encoder, self.width, self.longest = encoder, width, longest
        if features != width:
            self.enc_to_dec_proj = nn.Linear(features, width)
        self.embed = nn.Embedding(classes, width)
        if longest:
            self.positions = nn.Embedding(longest, width)
        layer = nn.TransformerDecoderLayer(
            width, heads, hidden, dropout=0.0, batch_first=True, norm_first=pre_norm
        )
        norm = nn.LayerNorm(width) if pre_norm else None
        self.decoder = nn.TransformerDecoder(layer, depth, norm)

    def memory(self, image):
        found = self.encoder(image)
        places = places_of(found) if found.ndim == 4 else found
        places = self.enc_to_dec_proj(places) if hasattr(self, "enc_to_dec_proj") else places
        if found.ndim == 3:
            return places
        rows, columns = (
            sines(torch.arange(1, n + 1) / (n + 1e-6) * 2 * math.pi, self.width // 2)
            for n in found.shape[2:]
        )
        halves = rows[:, None].expand(-1, len(columns), -1), columns[None].expand(len(rows), -1, -1)
        return places + torch.cat(halves, -1).flatten(0, 1).to(places)

    def forward(self, image, tokens):
        count = tokens.shape[1]
        if self.longest:
            words = self.embed(tokens) + self.positions.weight[:count]
        else:
            words = self.embed(tokens) * self.width**0.5
            words = words + sines(torch.arange(count), self.width).to(words)
        hidden = torch.ones(count, count, dtype=torch.bool).triu(1)
        x = self.decoder(words, self.memory(image), tgt_mask=hidden)
        return {"logits": x @ self.embed.weight.T}
