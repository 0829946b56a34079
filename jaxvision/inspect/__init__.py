"""What a network is made of and what it sees: tables of layers, pictures of features."""

from jaxvision.inspect.table import Layer, layers, totals

__all__ = ["Layer", "layers", "totals"]
