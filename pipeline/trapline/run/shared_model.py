"""A model in Ray's object store."""

from dataclasses import fields

import ray
import torch

from trapline.model.checkpoint import Model
from trapline.model.hiera import Hiera


class SharedModel:
    """A model that the processes of a run read from Ray's object store; Ray must be connected.

    Arrays are read where they lie. Tensors would be pickled, and copied several times: for Hiera-Base that takes 0.3 s
    in the driver, and as long in each predictor, and 200 MB for each.

    Args:
        model: its network is in float32.
    """

    def __init__(self, model: Model) -> None:
        facts = {field.name: getattr(model, field.name) for field in fields(model) if field.name != "network"}
        weights = {name: tensor.numpy() for name, tensor in model.network.state_dict().items()}
        self._stored = ray.put((facts, weights))

    def load(self) -> Model:
        """Return the model; its weights are read-only memory."""
        facts, weights = ray.get(self._stored)
        with torch.device("meta"):  # replaced below
            network = Hiera(facts["architecture"], len(facts["classes"]), facts["size"])
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
        return Model(network.eval().requires_grad_(False), **facts)
