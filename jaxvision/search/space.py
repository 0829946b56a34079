"""The networks that a search chooses among, as sequences of decisions."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Space:
    """Plain convolutional networks: Zoph and Le 2016, section 3.2, with fewer choices.

    For each layer: the height and the width of its filters, their number, and for each earlier
    layer whether its output is added to the input. The first layer's input is the image; a layer
    that takes no earlier one takes the one before it.

    Attributes:
      layers: how many.
      sides: heights and widths of filters to choose from, odd.
      widths: numbers of filters to choose from.
      pool_after: layers after which the maps are halved, counted from 0.
    """

    layers: int = 5
    sides: tuple[int, ...] = (1, 3)
    widths: tuple[int, ...] = (4, 8)
    pool_after: tuple[int, ...] = (1,)

    @property
    def choices(self) -> tuple[int, ...]:
        """How many options each decision has, in order: the length is that of a sequence."""
        sizes: list[int] = []
        for layer in range(self.layers):
            sizes += [len(self.sides), len(self.sides), len(self.widths), *[2] * max(0, layer - 1)]
        return tuple(sizes)

    @property
    def kinds(self) -> tuple[int, ...]:
        """What each decision is about: 0 a height, 1 a width, 2 a number of filters, 3 a skip."""
        kinds: list[int] = []
        for layer in range(self.layers):
            kinds += [0, 1, 2, *[3] * max(0, layer - 1)]
        return tuple(kinds)

    @property
    def size(self) -> int:
        """How many networks there are."""
        return int(np.prod(self.choices, dtype=object))

    def uniform(self, key: Array, count: int) -> Int[Array, "n d"]:
        """Sequences of decisions, each option as likely as the others."""
        keys = jax.random.split(key, len(self.choices))
        columns = [
            jax.random.randint(k, (count,), 0, options) for k, options in zip(keys, self.choices)
        ]
        return jnp.stack(columns, axis=1)

    def masks(
        self, decisions: Int[Array, " d"]
    ) -> tuple[Float[Array, "l side side"], Float[Array, "l width"], Float[Array, "l l"]]:
        """A network as masks on the largest one, so that all have arrays of the same shapes.

        Returns:
          Which taps of a layer's filters there are; which of its filters; and in row i the outputs
          that are added up as the input of layer i (column 0 is the first layer's output).
        """
        largest = max(self.sides)
        offsets = jnp.abs(jnp.arange(largest) - largest // 2)
        sides, widths = jnp.asarray(self.sides), jnp.asarray(self.widths)
        taps, filters, inputs, place = [], [], [], 0
        for layer in range(self.layers):
            height, width, number = decisions[place], decisions[place + 1], decisions[place + 2]
            place += 3
            rows, columns = offsets <= sides[height] // 2, offsets <= sides[width] // 2
            taps.append(rows[:, None] & columns)
            filters.append(jnp.arange(max(self.widths)) < widths[number])
            row = jnp.zeros(self.layers)
            if layer:
                # The previous output is always there; skips are to the ones before it.
                row = row.at[layer - 1].set(1.0)
            for earlier in range(layer - 1):
                row = row.at[earlier].set(decisions[place].astype(jnp.float32))
                place += 1
            inputs.append(row)
        return (
            jnp.stack(taps).astype(jnp.float32),
            jnp.stack(filters).astype(jnp.float32),
            jnp.stack(inputs),
        )

    def describe(self, decisions: Int[np.ndarray, " d"]) -> str:
        """A network in words, e.g. `3x5x16, 3x3x8, 1x3x16+1, ...`; `+1` adds layer 1's output."""
        texts, place = [], 0
        for layer in range(self.layers):
            height, width, number = (int(d) for d in decisions[place : place + 3])
            place += 3
            skips = max(0, layer - 1)
            added = [i + 1 for i in range(skips) if decisions[place + i]]
            place += skips
            text = f"{self.sides[height]}x{self.sides[width]}x{self.widths[number]}"
            texts.append(text + "".join(f"+{i}" for i in added))
        return ", ".join(texts)
