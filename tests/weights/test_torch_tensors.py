"""`from_torch` with PyTorch's own tensors and modules; `make torch` runs these tests."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.raising import raises
from tests.user_modules import Holder

torch = pytest.importorskip("torch", reason="`make torch` runs it", exc_type=ImportError)
pytestmark = pytest.mark.torch


def param(*shape, dtype=jnp.float32):
    return Holder(w=liftnn.Param(jnp.zeros(shape, dtype)))


TENSORS = {
    "a view with other strides": lambda: torch.arange(12.0).reshape(3, 4).T,
    "a slice": lambda: torch.arange(48.0).reshape(4, 12)[:, ::4],
    "an expanded tensor": lambda: torch.arange(3.0).expand(4, 3),
    "a Parameter": lambda: torch.nn.Parameter(torch.arange(12.0).reshape(4, 3)),
    "a tensor with a gradient": lambda: torch.arange(12.0).reshape(4, 3).requires_grad_() * 2,
    "a negated view of a complex tensor": lambda: (
        torch.complex(torch.ones(4, 3), torch.ones(4, 3)).conj().imag
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_the_values_of_every_kind_of_tensor_are_read(name):
    x, module = TENSORS[name](), param(4, 3)
    liftnn.from_torch(module, {"w": x})
    np.testing.assert_array_equal(module.w.value, x.detach().resolve_neg().numpy())


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        "float16",
        "float32",
        "float8_e4m3fn",
        "float8_e5m2",
        "int8",
        "uint8",
        "int32",
        "bool",
        "complex64",
    ],
)
def test_every_dtype_is_read_and_written_bit_for_bit(dtype):
    x = torch.tensor([0.0, 1.0, 0.5, -2.0]).abs().to(getattr(torch, dtype))
    module = param(4, dtype=dtype)
    liftnn.from_torch(module, {"w": x})
    assert module.w.value.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(module.w.value).astype(np.complex64), x.to(torch.complex64).numpy()
    )
    assert np.asarray(module.w.value).tobytes() == liftnn.to_torch(module)["w"].tobytes()
    assert np.asarray(module.w.value).view(np.uint8).tolist() == x.view(torch.uint8).tolist()


def test_training_the_pytorch_module_does_not_change_the_liftnn_module():
    theirs, ours = torch.nn.BatchNorm1d(4096), liftnn.BatchNorm(4096, rngs=liftnn.Rngs(0))
    liftnn.from_torch(ours, theirs.state_dict())
    theirs(torch.randn(8, 4096))
    with torch.no_grad():
        theirs.weight.add_(1)
    assert not ours.mean.value.any()
    np.testing.assert_array_equal(ours.scale.value, np.ones(4096))


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_a_tensor_without_values_is_an_error(kind):
    x = torch.zeros(4, device="meta") if kind == "meta" else torch.zeros(4).to_sparse()
    module = param(4)
    with raises(
        liftnn.CheckpointError,
        "The state_dict holds something at 'w' that is not an array with values.\n"
        "Replace it by an array, or skip it with a rule (pattern, None).",
    ):
        liftnn.from_torch(module, {"w": x})


def test_a_tensor_without_values_can_be_skipped():
    module = param(4)
    tensors = {"w": torch.ones(4), "extra": torch.zeros(4, device="meta")}
    assert not liftnn.from_torch(module, tensors, [("extra", None)])


class Tied(torch.nn.Module):
    """A language model with one matrix for tokens and logits."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def test_tied_weights_of_pytorch_are_read_once_and_written_twice():
    ours = Holder(embed=liftnn.Embed(7, 4, rngs=liftnn.Rngs(0)))
    ours.head = ours.embed  # its method `attend` gives the logits
    theirs = Tied()
    liftnn.from_torch(ours, theirs.state_dict())
    np.testing.assert_array_equal(ours.embed.embedding.value, theirs.embed.weight.detach().numpy())
    written = liftnn.to_torch(ours)
    theirs.load_state_dict({name: torch.from_numpy(x) for name, x in written.items()})
    assert theirs.head.weight is theirs.embed.weight


def test_prefixes_of_wrappers_are_a_rule():
    theirs = torch.nn.DataParallel(torch.nn.Linear(2, 3))
    ours = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    liftnn.from_torch(ours, theirs.state_dict(), [("^", "module.")])
    np.testing.assert_array_equal(ours.bias.value, theirs.module.bias.detach().numpy())


def test_a_transformer_of_pytorch_computes_the_same():
    class Block(liftnn.Module):
        def __init__(self, rngs):
            self.self_attn = liftnn.MultiHeadAttention(2, 8, rngs=rngs)
            self.linear1, self.linear2 = liftnn.Linear(8, 16, rngs=rngs), liftnn.Linear(16, 8, rngs=rngs)
            self.norm1, self.norm2 = (liftnn.LayerNorm(8, epsilon=1e-5, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            x = self.norm1(x + self.self_attn(x))
            return self.norm2(x + self.linear2(liftnn.relu(self.linear1(x))))

    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = theirs(x).numpy()
    for layers in (liftnn.Stack(3, Block, rngs=liftnn.Rngs(0)), [Block(liftnn.Rngs(i)) for i in range(3)]):
        ours = Holder(layers=layers)
        assert not liftnn.from_torch(ours, theirs.state_dict())
        y = jnp.asarray(x.numpy())
        for block in layers.to_list() if isinstance(layers, liftnn.Stack) else layers:
            y = block(y)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
