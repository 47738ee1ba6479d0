"""LoRA fine-tuning: a trained network gets adapters in place of its layers, and only these are trained."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class MLP(nnx.Module):
    def __init__(self, din: int, hidden: int, dout: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(din, hidden, rngs=rngs), nnx.Linear(hidden, hidden, rngs=rngs)])
        self.norm = nnx.RMSNorm(hidden, rngs=rngs)
        self.head = nnx.Linear(hidden, dout, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(self.norm(x))


def add_lora(model: MLP, rank: int, *, rngs: nnx.Rngs):
    for i, base in enumerate(list(model.layers)):
        model.layers[i] = nnx.LoRA(base.in_features, rank, base.out_features, base_module=base, rngs=rngs)
    head = model.head
    new = nnx.LoRALinear(head.in_features, head.out_features, lora_rank=rank, rngs=rngs)
    graphdef, lora, _ = nnx.split(new, nnx.LoRAParam, nnx.Param)
    model.head = nnx.merge(graphdef, lora, nnx.state(head, nnx.Param))


def loss_fn(model, x, y):
    return optax.l2_loss(model(x), y).mean()


@nnx.jit
def pretrain_step(model, optimizer, x, y):
    loss, grads = nnx.value_and_grad(loss_fn)(model, x, y)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def finetune_step(model, optimizer, x, y):
    wrt = nnx.DiffState(0, nnx.LoRAParam)
    loss, grads = nnx.value_and_grad(loss_fn, argnums=wrt)(model, x, y)
    optimizer.update(model, grads)
    return loss


def merge_adapter(lora: nnx.LoRA) -> nnx.Linear:
    base = nnx.clone(lora.base_module)
    base.kernel[...] = base.kernel + lora.lora_a @ lora.lora_b
    return base


def main():
    rngs = nnx.Rngs(params=0, lora=1)
    model = MLP(3, 8, 2, rngs=rngs)
    keys = jax.random.split(jax.random.key(2), 3)
    x = jax.random.normal(keys[0], (16, 3))
    w = jax.random.normal(keys[1], (3, 2))

    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    losses = [pretrain_step(model, optimizer, x, jnp.tanh(x @ w)) for _ in range(3)]
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))

    add_lora(model, 2, rngs=nnx.Rngs(params=3))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.LoRAParam)
    losses += [finetune_step(model, optimizer, x, jnp.tanh(2 * x @ w)) for _ in range(3)]

    adapters = nnx.state(model, nnx.LoRAParam)
    frozen = nnx.state(model, nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam)))
    merged = merge_adapter(model.layers[0])
    same = [
        bool((model.layers[0].base_module.kernel[...] == before["layers"][0]["kernel"][...]).all()),
        bool((model.head.kernel[...] == before["head"]["kernel"][...]).all()),
    ]
    sizes = [sum(v.size for v in jax.tree.leaves(s)) for s in (adapters, frozen)]
    return [losses, adapters, frozen, same, sizes, merged(x), model(x)]
