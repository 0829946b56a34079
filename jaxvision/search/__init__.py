"""Architecture search with a controller that learns by reinforcement.

Zoph and Le, Neural Architecture Search with Reinforcement Learning, 2016,
https://arxiv.org/abs/1611.01578: a recurrent network writes down a network layer by layer, the
network is trained, its validation accuracy is the reward.
"""

from jaxvision.search.children import Data, train_children
from jaxvision.search.controller import Controller
from jaxvision.search.space import Space
from jaxvision.search.strategies import Round, random_search, reinforce

__all__ = [
    "Controller",
    "Data",
    "Round",
    "Space",
    "random_search",
    "reinforce",
    "train_children",
]
