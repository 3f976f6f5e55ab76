"""Groups of like parameters, by whoever makes them."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from subspace.integrations.trainer_groups import parameter_groups
from subspace.methods.galore import GaLore, GaLoreConfig
from subspace.optim.groups import like_groups, projected_groups
from subspace.optim.settings import OptimizerSettings


def test_like_options_make_one_group_in_the_order_of_first_members() -> None:
    a, b, c = (nn.Parameter(torch.zeros(size)) for size in (1, 2, 3))
    groups = like_groups([("a", a, {"lr": 1.0}), ("b", b, {"lr": 2.0}), ("c", c, {"lr": 1.0})])
    assert groups == [{"params": [("a", a), ("c", c)], "lr": 1.0}, {"params": [("b", b)], "lr": 2.0}]


def test_projected_matrices_have_a_rank_and_vectors_no_decay() -> None:
    weights = {"q": torch.zeros(4, 4), "head": torch.zeros(4, 4), "norm": torch.zeros(4)}
    found = projected_groups(weights.items(), {"q"}, 2, 0.1)
    shown = [([name for name, _ in group.pop("params")], group) for group in found]
    assert shown == [
        (["q"], {"weight_decay": 0.1, "rank": 2}),
        (["head"], {"weight_decay": 0.1}),
        (["norm"], {"weight_decay": 0.0}),
    ]


def test_a_recipe_and_a_trainer_make_the_same_groups() -> None:
    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **size))
    method = GaLore(GaLoreConfig(rank=4))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if "_proj." in name}
    method._project(shapes)
    ours = method.optimizer(model, OptimizerSettings(weight_decay=0.1)).param_groups
    theirs = parameter_groups(model, rank=4, weight_decay=0.1)
    assert len(ours) == len(theirs) == 3
    for own, other in zip(ours, theirs, strict=True):
        assert own["param_names"] == [name for name, _ in other["params"]]
        assert (own.get("rank"), own["weight_decay"]) == (other.get("rank"), other["weight_decay"])
