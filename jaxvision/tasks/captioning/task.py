"""Captioning: each word of a sentence about an image after those before it.

The loss is the cross-entropy of the next token, where the words before are the true ones (Vinyals
et al., Show and Tell, 2015, https://arxiv.org/abs/1411.4555), in part the network's own (Bengio et
al., Scheduled Sampling, 2015, https://arxiv.org/abs/1506.03099, in two passes as Mihaylova and
Martins, 2019, https://arxiv.org/abs/1906.07651), or a reward of whole captions (Rennie et al.,
Self-critical Sequence Training, 2017, https://arxiv.org/abs/1612.00563). Attention has losses of
its own (Xu et al., Show, Attend and Tell, 2015, https://arxiv.org/abs/1502.03044).
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision import pretrained
from jaxvision.data import caption_frequencies
from jaxvision.data.annotations import KINDS
from jaxvision.data.annotations.caption import text_of
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError
from jaxvision.losses import Objective, Ratio, cross_entropy, masked_ratio
from jaxvision.metrics import Mean
from jaxvision.metrics.captioning import bleu, cider, distinct, rouge_l
from jaxvision.ops import ngrams
from jaxvision.ops.decoding import Cache, Decoded, Step, beam, greedy, sample
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch, Metric, Spec, Sums, Update, Variables
from jaxvision.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_KEPT = 0.9  # of the baseline of hard attention's reward, at each step (Xu et al. 2015, 4.1)
_BASELINE, _FREQUENCIES = "baseline", "frequencies"


@dataclass(frozen=True)
class Decoding:
    """How a caption is found; see `captioning.*` among the keys, and `jaxvision.ops.decoding`."""

    how: str = "greedy"
    length: int = 31
    beams: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Captioning(base.Task):
    """Batches carry `image`, the annotation `caption` with tokens, and `valid`.

    Attributes:
      tokenizer: of the captions.
      label_smoothing: mass spread over all tokens.
      scheduled_sampling: the share of words read that are the network's own, at the end.
      attend_everywhere: weight of doubly stochastic attention.
      reinforce, entropy: weights of hard attention's reward and entropy.
      self_critical: whether CIDEr-D is the reward of whole captions.
      frequencies: of the n-grams of the captions to train on, for that.
      frozen_encoder: the share of the training in which the encoder stays as it is.
      decoding: how captions are found.
    """

    annotations: ClassVar[tuple[str, ...]] = ("caption",)
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "loss/*": Metric("neither"),
        "reward": Metric("higher"),
        "perplexity": Metric("lower"),
        "bleu1": Metric("higher"),
        "bleu2": Metric("higher"),
        "bleu3": Metric("higher"),
        "bleu4": Metric("higher"),
        "rouge_l": Metric("higher"),
        "cider": Metric("higher"),
        "distinct": Metric("neither"),
    }
    main_metric: ClassVar[str] = "cider"
    training_collections: ClassVar[tuple[str, ...]] = (_BASELINE, _FREQUENCIES)

    model: nn.Module
    tokenizer: Tokenizer
    inputs: Inputs = field(default_factory=Inputs)
    class_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    scheduled_sampling: float = 0.0
    attend_everywhere: float = 1.0
    reinforce: float = 1.0
    entropy: float = 0.002
    self_critical: bool = False
    frequencies: ngrams.Frequencies | None = None
    frozen_encoder: float = 0.0
    decoding: Decoding = Decoding()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own = config.captioning
        vocabulary = facts.vocabulary or KINDS["caption"].vocabulary(config.data, None)
        if vocabulary is None:
            raise UserError(
                "It is not known what the network's tokens are; give data.tokenizer the path of "
                "the tokenizer.json that it was trained with."
            )
        tokenizer = Tokenizer.of(vocabulary)
        model = base.create_network(config, tokenizer.size)
        length = own.max_length or config.data.max_tokens - 1
        longest = getattr(model, "max_tokens", 0)
        if longest and max(length, config.data.max_tokens - 1) > longest:
            raise UserError(
                f"{config.model.name} has positions for {longest} tokens; data.max_tokens and "
                "captioning.max_length ask for more. Give it more by model.options.max_tokens."
            )
        frequencies = caption_frequencies.of(vocabulary) if own.self_critical else None
        return cls(
            model=model,
            tokenizer=tokenizer,
            inputs=Inputs.create(config, facts),
            class_names=facts.class_names,
            label_smoothing=own.label_smoothing,
            scheduled_sampling=own.scheduled_sampling,
            attend_everywhere=own.attend_everywhere,
            reinforce=own.reinforce,
            entropy=own.entropy,
            self_critical=own.self_critical,
            frequencies=frequencies,
            frozen_encoder=own.frozen_encoder,
            decoding=Decoding(
                own.decoding,
                length,
                own.beams,
                own.length_penalty,
                own.no_repeat_ngram_size,
                own.temperature,
                own.top_k,
                own.top_p,
            ),
        )

    @property
    def _is_hard(self) -> bool:
        """Whether the network draws where it looks."""
        return bool(getattr(self.model, "hard", False))

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        variables = super().init(key, spec)
        if self._is_hard:
            variables[_BASELINE] = {"likelihood": jnp.zeros(())}
        if self.frequencies is not None:
            # Part of the state, not of the program: they may be megabytes.
            variables[_FREQUENCIES] = {
                "documents": jnp.float32(self.frequencies.documents),
                "hashes": jnp.asarray(self.frequencies.hashes),
                "counts": jnp.asarray(self.frequencies.counts),
            }
        return variables

    def load_weights(
        self, config: "ConfigDict", variables: Variables, read: base.Reader
    ) -> Variables:
        def known(weights: str, name: str, *preferred: str) -> pretrained.Weights:
            found = read(weights, name, *preferred)
            if name != config.model.name or config.model.reset_classifier or not found.vocabulary:
                return found
            if Tokenizer.of(found.vocabulary) != self.tokenizer:
                raise UserError(
                    f"The tokens of {weights} stand for other words than those of these captions. "
                    "Set model.reset_classifier=True to learn words afresh."
                )
            return found

        return base.load_network(config, self.model, variables, known)

    # -- training ----------------------------------------------------------------------------------

    def step(self, state: Any, batch: Batch, key: jax.Array, update: Update) -> tuple[Any, Sums]:
        part = state.step / update.total
        loss = functools.partial(self.loss, own_words=self.scheduled_sampling * part)
        gradient, (model_state, sums) = update.gradients("main", loss, state, batch, key)
        new = update("main", gradient, state.replace(model_state=model_state))
        if not 0 < self.frozen_encoder < 1:
            return new, sums
        thawed = part >= self.frozen_encoder

        def kept(before: Any, after: Any) -> Any:
            return jax.tree.map(lambda old, now: jnp.where(thawed, now, old), before, after)

        encoder = kept(state.params["encoder"], new.params["encoder"])
        return new.replace(params={**new.params, "encoder": encoder}), sums

    def loss(
        self,
        params: Any,
        model_state: Any,
        batch: Batch,
        key: jax.Array,
        own_words: jax.Array | float = 0.0,
    ):
        """See `base.Task`; `own_words` is the share of words read that are the network's own."""
        augment_key, dropout_key, draw_key = jax.random.split(key, 3)
        batch = self.inputs.train(self._annotated(batch), augment_key)
        if self.frozen_encoder == 1:
            params = {**params, "encoder": lax.stop_gradient(params["encoder"])}
        if self.self_critical:
            return self._reward_loss(params, model_state, batch, dropout_key, draw_key)
        tokens = batch["caption_tokens"][:, 0]
        read, said = tokens[:, :-1], tokens[:, 1:]
        if self.scheduled_sampling:
            read = self._mixed(params, model_state, batch, read, own_words, dropout_key, draw_key)
        output, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key, tokens=read
        )
        counted = self._counted(said) & batch["valid"][:, None]
        entropy, weight = cross_entropy(
            output["logits"], said, label_smoothing=self.label_smoothing
        )
        means = {"words": masked_ratio(entropy, weight, counted)}
        if "attention_log_probability" in output:
            more, model_state = self._reinforced(output, said, counted, model_state)
            means |= more
        elif "attention" in output and self.attend_everywhere:
            looked = jnp.where(counted[..., None], output["attention"], 0).sum(1)
            unseen = jnp.square(1 - looked).mean(-1)
            valid = batch["valid"]
            everywhere = masked_ratio(unseen, jnp.ones(unseen.shape), valid)
            means["everywhere"] = everywhere.scaled(self.attend_everywhere)
        return Objective(means), (model_state, _parts(means))

    def _mixed(
        self,
        params: Any,
        model_state: Any,
        batch: Batch,
        read: Int[Array, "b t"],
        share: jax.Array | float,
        dropout_key: jax.Array,
        key: jax.Array,
    ) -> Int[Array, "b t"]:
        """What is read, a share of it replaced by what the network says after the true words."""
        draw_key, mix_key = jax.random.split(key)
        frozen = lax.stop_gradient(params)
        output, _ = base.apply_train(
            self.model, frozen, model_state, batch["image"], dropout_key, tokens=read
        )
        guesses = jax.random.categorical(draw_key, lax.stop_gradient(output["logits"]))
        guesses = jnp.concatenate([read[:, :1], guesses[:, :-1].astype(read.dtype)], 1)
        own = jax.random.bernoulli(mix_key, share, read.shape).at[:, 0].set(False)
        return jnp.where(own, guesses, read)

    def _reinforced(
        self, output: Any, said: Int[Array, "b t"], counted: Bool[Array, "b t"], model_state: Any
    ) -> tuple[dict[str, Ratio], Any]:
        """Means that teach where to look, by how likely the true words became; new baseline."""
        log_p = -cross_entropy(output["logits"], said)[0]
        count = counted.sum(-1)
        likelihood = jnp.where(counted, log_p, 0).sum(-1) / jnp.maximum(count, 1)
        rows = count > 0
        baseline = model_state[_BASELINE]["likelihood"]
        reward = lax.stop_gradient(likelihood) - baseline
        chosen, unsure = output["attention_log_probability"], output["attention_entropy"]
        ones = jnp.ones(counted.shape)
        means = {
            "reinforce": masked_ratio(-reward[:, None] * chosen, ones, counted).scaled(
                self.reinforce
            ),
            "entropy": masked_ratio(-unsure, ones, counted).scaled(self.entropy),
        }
        now = jnp.where(rows, lax.stop_gradient(likelihood), 0).sum() / jnp.maximum(rows.sum(), 1)
        new = _KEPT * baseline + (1 - _KEPT) * now
        return means, {**model_state, _BASELINE: {"likelihood": new}}

    def _reward_loss(
        self, params: Any, model_state: Any, batch: Batch, dropout_key: jax.Array, key: jax.Array
    ):
        """Captions that are drawn become likelier, the better they are than the likeliest."""
        variables: Variables = lax.stop_gradient({"params": params, **model_state})
        step, cache = self._start(variables, batch["image"], self.decoding.length)
        drawn = sample(step, cache, key, **self._ends)
        likeliest = greedy(step, cache, **self._ends)
        truths = batch["caption_tokens"][..., 1:]
        lengths = ngrams.lengths_before(truths, self.tokenizer.end)

        def reward(found: Decoded) -> Float[Array, " b"]:
            return ngrams.cider_d(
                found.tokens,
                ngrams.lengths_before(found.tokens, self.tokenizer.end),
                truths,
                lengths,
                batch["caption_valid"],
                ngrams.Frequencies(**model_state[_FREQUENCIES]),
            )

        got, usual = reward(drawn), reward(likeliest)
        begin = jnp.full_like(drawn.tokens[:, :1], self.tokenizer.begin)
        read = jnp.concatenate([begin, drawn.tokens[:, :-1]], 1)
        output, model_state = base.apply_train(
            self.model, params, model_state, batch["image"], dropout_key, tokens=read
        )
        entropy, weight = cross_entropy(output["logits"], drawn.tokens)
        spoken = jnp.arange(drawn.tokens.shape[1]) < drawn.lengths[:, None]
        counted = spoken & batch["valid"][:, None]
        mean = masked_ratio((got - usual)[:, None] * entropy, weight, counted)
        return Objective({"words": mean}), (model_state, {"reward": Mean.of(got, batch["valid"])})

    def _annotated(self, batch: Batch) -> Batch:
        """Raises:
        UserError: there are no captions, or no tokens.
        """
        if "caption_tokens" not in batch:
            raise UserError(
                "The data have no captions with tokens; is this a data set of captions?"
            )
        return batch

    def _counted(self, said: Int[Array, "*b t"]) -> Bool[Array, "*b t"]:
        """Which tokens are of a caption: up to the first end, which may be what pads, too."""
        ends = said == self.tokenizer.end
        return jnp.cumsum(ends, -1) - ends == 0

    # -- use ---------------------------------------------------------------------------------------

    @property
    def _ends(self) -> dict[str, Any]:
        of = self.tokenizer
        return {"begin": of.begin, "end": of.end, "pad": of.pad, "length": self.decoding.length}

    def _start(
        self, variables: Variables, image: Float[Array, "b h w c"], length: int
    ) -> tuple[Step, Cache]:
        """What continues captions of normalised images, and where they begin."""
        memory = self.model.apply(variables, image, method="encode")
        cache: Any = self.model.apply(variables, memory, length, method="start")
        return self._speaker(variables), cache

    def _speaker(self, variables: Variables) -> Step:
        """The network's step, that never says what is no word: begin, padding, unknown."""
        of = self.tokenizer
        never = np.array(sorted({of.begin, of.pad, of.unknown} - {of.end}), np.int32)

        def step(cache: Cache, token: Array) -> tuple[Array, Cache]:
            stepped: Any = self.model.apply(variables, cache, token, method="step")
            logits, cache = stepped
            return logits.at[:, never].set(-jnp.inf), cache

        return step

    def captions(self, variables: Variables, image: jax.Array, key: jax.Array) -> Decoded:
        """What is found of uint8 images [b, h, w, c]."""
        how = self.decoding
        step, cache = self._start(variables, self.inputs.evaluate(image), how.length)
        given: dict[str, Any] = {**self._ends, "no_repeat_ngram_size": how.no_repeat_ngram_size}
        if how.how == "beam":
            return beam(step, cache, beams=how.beams, length_penalty=how.length_penalty, **given)
        if how.how == "sample":
            given |= {"temperature": how.temperature, "top_k": how.top_k, "top_p": how.top_p}
            return sample(step, cache, key, **given)
        return greedy(step, cache, **given)

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`tokens` and `log_probabilities` [b, t], and `attention` [b, t, i, j] if there is any."""
        found = self.captions(variables, batch["image"], key)
        outputs = {"tokens": found.tokens, "log_probabilities": found.log_probabilities}
        return outputs if found.attention is None else {**outputs, "attention": found.attention}

    def parts(self, variables: Variables) -> dict[str, Variables]:
        inner = {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}
        found = {"model": variables}
        return {**found, "encoder": inner, "backbone": inner} if inner else found

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        tokens = self._annotated(batch)["caption_tokens"]
        read, said = tokens[..., :-1], tokens[..., 1:]
        memory = self.model.apply(variables, self.inputs.evaluate(batch["image"]), method="encode")
        several = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], 0), memory)
        logits: Any = self.model.apply(
            variables, several, read.reshape(-1, read.shape[-1]), method="score"
        )
        entropy, _ = cross_entropy(logits, said.reshape(logits.shape[:2]))
        counted = self._counted(said) & batch["caption_valid"][..., None]
        counted &= batch["valid"][:, None, None]
        entropy = jnp.where(counted, entropy.reshape(said.shape), 0)
        total, count = entropy.sum((1, 2)), counted.sum((1, 2)).astype(jnp.float32)
        rows = {
            "found": self.captions(variables, batch["image"], key).tokens,
            "true": batch["caption"],
            "known": batch["caption_valid"],
            "entropy": total,
            "words": count,
        }
        return {"loss": Mean(total.sum(), count.sum())}, rows

    def texts(self, tokens: Int[np.ndarray, "n t"]) -> list[str]:
        """The captions of rows of tokens."""
        return [self.tokenizer.decode(row) for row in tokens]

    def references(self, rows: Mapping[str, Any]) -> list[list[str]]:
        """The true captions of each record of an evaluation."""
        return [
            [text_of(text) for text, there in zip(texts, known) if there]
            for texts, known in zip(rows["true"], rows["known"])
        ]

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        """Perplexity of the true captions' tokens, and how those found compare with them."""
        found, true = self.texts(rows["found"]), self.references(rows)
        entropy = float(rows["entropy"].sum(dtype=np.float64))
        words = float(rows["words"].sum(dtype=np.float64))
        return {
            "perplexity": math.exp(min(entropy / words, 700.0)),
            **{f"bleu{n}": float(value) for n, value in enumerate(bleu(found, true), start=1)},
            "rouge_l": rouge_l(found, true),
            "cider": cider(found, true),
            "distinct": distinct(found),
        }

    def scores(self) -> tuple[str, ...]:
        return ("perplexity", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "distinct")


def _parts(means: Mapping[str, Ratio]) -> dict[str, Mean]:
    """The means of a loss that has several, for the log."""
    if len(means) == 1:
        return {}
    return {f"loss/{name}": Mean(mean.total, mean.weight) for name, mean in means.items()}
