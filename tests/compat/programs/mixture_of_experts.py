"""A mixture of experts: experts created by nnx.vmap, a noisy router, an auxiliary loss that is sown and popped."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Expert(nnx.Module):
    def __init__(self, features: int, hidden: int, rngs: nnx.Rngs):
        self.up = nnx.Linear(features, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


class MoE(nnx.Module):
    def __init__(self, features: int, hidden: int, experts: int, top: int, *, rngs: nnx.Rngs):
        self.count, self.top = experts, top
        self.router = nnx.Linear(features, experts, use_bias=False, rngs=rngs)
        self.noise = nnx.Param(jnp.full((experts,), 0.1))
        self.rngs = rngs

        @nnx.split_rngs(splits=experts)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs: nnx.Rngs):
            return Expert(features, hidden, rngs)

        self.experts = create(rngs)

    def __call__(self, x):
        logits = self.router(x)
        logits = logits + self.noise * self.rngs.noise.normal(logits.shape)
        weights, chosen = jax.lax.top_k(logits, self.top)
        gates = jnp.zeros_like(logits)
        gates = jnp.put_along_axis(gates, chosen, nnx.softmax(weights), axis=-1, inplace=False)
        load = (gates > 0).astype(jnp.float32).mean(0)
        self.sow(nnx.Intermediate, "balance", self.count * jnp.sum(load * nnx.softmax(logits).mean(0)))

        @nnx.vmap(in_axes=(0, None), out_axes=1)
        def run(expert, x):
            return expert(x)

        return jnp.einsum("be,bef->bf", gates, run(self.experts, x))


class Model(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = nnx.Linear(3, 8, rngs=rngs)
        self.moe = nnx.List([MoE(8, 16, 4, 2, rngs=rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        for layer in self.moe:
            x = x + layer(self.norm(x))
        return self.head(x)


@nnx.jit
def train_step(model, optimizer, x, y):
    def loss_fn(model):
        logits = model(x)
        aux = sum(jax.tree.leaves(nnx.pop(model, nnx.Intermediate)))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss + 0.01 * aux, (loss, aux)

    (_, parts), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return parts, optax.global_norm(grads)


def main():
    model = Model(rngs=nnx.Rngs(params=0, noise=1))
    optimizer = nnx.Optimizer(model, optax.lion(1e-3), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(2), (3, 6, 3))
    y = jax.random.randint(jax.random.key(3), (3, 6), 0, 2)
    history = [train_step(model, optimizer, a, b) for a, b in zip(x, y, strict=True)]
    shapes = {"/".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    out = model(x[0])
    sown = nnx.pop(model, nnx.Intermediate)
    return [history, shapes, out, sown, nnx.state(model)]
