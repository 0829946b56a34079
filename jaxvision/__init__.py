"""Computer vision in JAX and Flax: pure functions, one training loop, weights that travel."""

__version__ = "0.1.0"
