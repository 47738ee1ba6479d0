"""Each public name of the installed Flax NNX is in liftnn.compat.nnx: the same, its own, or an error with a reason."""

import fnmatch
import importlib
import pathlib
import pkgutil
import subprocess
import sys
import types
import typing

import flax.nnx
import jax
import numpy as np
import pytest
from tests.raising import raises

import liftnn
import liftnn.compat
from liftnn._src.compat.unsupported import REASONS, REMOVED
from liftnn.compat import nnx

FLAX = sorted(name for name in dir(flax.nnx) if not name.startswith("_"))


def test_every_name_of_flax_is_offered():
    assert [name for name in FLAX if not hasattr(nnx, name)] == []


def test_every_name_of_liftnn_is_offered():
    assert set(liftnn.__all__) <= set(nnx.__all__)
    assert [name for name in nnx.__all__ if not hasattr(nnx, name)] == []


def test_what_is_not_replaced_is_liftnns_own():
    for name in (
        "Linear",
        "Param",
        "Rngs",
        "State",
        "Variable",
        "StateAxes",
        "relu",
        "Conv",
    ):
        assert getattr(nnx, name) is getattr(liftnn, name)


def test_what_only_the_stand_in_has_is_not_at_the_top():
    assert {"List", "Dict", "data", "static", "graphdef", "merge_state", "TrainState"}.isdisjoint(dir(liftnn))


LEFT_OUT = {
    "of the graphs and the transforms of Flax": (
        "*Attr *Context *Elem *Impl *ImplBase *_ATTR *_CONTEXT ArrayRef* AttributeStatus Broadcasted CallableProxy "
        "DelayedAccessor GRAPH_* GenericPytree GraphFlatState HashableMapping IndexMap IndexesPytreeDef LiftedModule "
        "NO_UPDATE NoUpdate Node NodeDef NodeRef ObjectContext PYTREE_* PytreeDeque PytreeState PythonRefMap REPEATED "
        "RefMap Repeated Static StaticCache StrInt TreeNodeDef UUIDManager UpdateContextManager ValueMetadata "
        "VariableDef backup_keys current_update_context get_node_impl* graph_pop has_keyword_arg is_key_like "
        "is_node_leaf is_node_module is_node_type is_pytree_node jax_to_nnx_path merge_context register_*_node_type "
        "resolve_kwargs split_context static_cache tuple_init tuple_reduce update_context KeylessInitializer"
    ),
    "classes of what a transform of Flax returns or calls": (
        "*Fn *CustomVjp *FnWrapper *Wrapped *Compiled *Lowered *Traced Stage *Caller"
    ),
    "only for type checkers": "AuxData Fargs HasTag Index Leaf Leaves *Apply PromoteDtypeFn RNNBase SplitBackups",
    "sentinels, settings and deprecations of Flax": (
        "MISSING Missing config deprecated labeled NotKey BaseConfigContext FrozenDict"
    ),
    "metaclasses": "*Meta",
    "how Flax prints": "*Repr NoneDumper ObjectInfo SizeBytes render_object_constructor",
    "Variables of hijax or JAX refs": (
        "AbstractVariable GetVariable HijaxVariable NewVariable SetVariable VariableQDD *_variable_p is_array_ref "
        "VariableEffect variable_effect"
    ),
}
"""Patterns of the names in Flax's modules that the stand-in does not have, by the reason."""
PATTERNS = [pattern for patterns in LEFT_OUT.values() for pattern in patterns.split()]
FLAX_MODULES = sorted(m.name for m in pkgutil.walk_packages(flax.nnx.__path__, "flax.nnx."))
OTHER_MODULES = {
    "transforms.general",
    *(f"bridge.{x}" for x in ("interop", "module", "variables", "wrappers")),
}
"""Modules of Flax that the stand-in does not have, beside those whose names are in `REASONS`."""


def names_of_flax(module):
    """The public names that a module of Flax defines, or imports from another one; not the variables of types."""
    types_of_types = (typing.TypeVar, typing.ParamSpec, types.ModuleType)
    return [
        name
        for name, x in vars(importlib.import_module(module)).items()
        if not name.startswith("_")
        and not isinstance(x, types_of_types)
        and str(getattr(x, "__module__", "")).startswith("flax.")
    ]


@pytest.mark.parametrize("module", FLAX_MODULES)
def test_a_module_has_the_names_of_the_one_in_flax_but_those_with_a_reason(module):
    below = module.removeprefix("flax.nnx.")
    if below in OTHER_MODULES or below in REASONS:
        return
    ours = importlib.import_module(f"liftnn.compat.nnx.{below}")
    missing = [name for name in names_of_flax(module) if not hasattr(ours, name)]
    assert [x for x in missing if not any(fnmatch.fnmatchcase(x, pattern) for pattern in PATTERNS)] == []


@pytest.mark.parametrize(
    "name", ["filterlib.PathParts", "statelib.PathParts", "module.PathParts", "graph.PathParts"]
)
def test_a_module_has_the_alias_of_paths(name):
    module, name = name.split(".")
    assert hasattr(getattr(flax.nnx, module), name)
    assert hasattr(getattr(nnx, module), name)


LAYERS = sorted(m.name for m in pkgutil.iter_modules(flax.nnx.nn.__path__))
NO_FUNCTIONS = {"A", "T", "RNNBase"}
"""Names of Flax's modules of layers that only type checkers use."""


@pytest.mark.parametrize("module", LAYERS)
def test_every_module_of_layers_has_a_stand_in_with_its_names(module):
    theirs = importlib.import_module(f"flax.nnx.nn.{module}")
    ours = importlib.import_module(f"liftnn.compat.nnx.nn.{module}")
    defined = [
        name
        for name, x in vars(theirs).items()
        if not name.startswith("_") and getattr(x, "__module__", None) == theirs.__name__
    ]
    assert [name for name in defined if name not in NO_FUNCTIONS and not hasattr(ours, name)] == []


@pytest.mark.parametrize("name", sorted(REASONS))
def test_an_unsupported_name_raises_when_it_is_used(name):
    reason, remedy = REASONS[name]
    x = getattr(nnx, name)
    text = f"nnx.{name} of Flax is not in liftnn.compat.nnx: {reason}.\n{remedy}"
    for use in (lambda: x.something, lambda: x(), lambda: x[0], lambda: x.__enter__()):
        with pytest.raises(liftnn.LiftError) as error:
            use()
        assert str(error.value) == text


def test_to_tree_of_a_state_has_the_leaves_of_flax():
    model, flax_model = (library.Linear(2, 3, rngs=library.Rngs(0)) for library in (nnx, flax.nnx))
    for wrap in (lambda x: x, lambda x: {"model": x, "scale": np.float32(2)}):
        expected = jax.tree.leaves(flax.nnx.to_tree(wrap(flax.nnx.state(flax_model))))
        found = jax.tree.leaves(nnx.to_tree(wrap(nnx.state(model))))
        for x, y in zip(found, expected, strict=True):
            assert (x == y).all()


@pytest.mark.parametrize(
    "tree, options, what",
    [
        ([1, nnx.Linear(2, 3, rngs=nnx.Rngs(0))], {}, "a Linear in its tree"),
        ({"a": nnx.Param(1.0)}, {}, "a Param in its tree"),
        ([1, 2], {"prefix": 0}, "the option 'prefix'"),
    ],
)
def test_to_tree_of_modules_is_an_error(tree, options, what):
    with raises(
        liftnn.errors.ArgumentTypeError,
        f"nnx.to_tree of liftnn.compat.nnx takes trees of arrays and States, not {what}: liftnn's transforms do not "
        "use it.\nTo read arrays, pass `nnx.state(model)`. Write a transform with `liftnn.lift`; see "
        "docs/guides/custom_transforms.md.",
    ):
        nnx.to_tree(tree, **options)


def test_the_linen_like_modules_of_the_bridge_raise_when_they_are_used():
    with pytest.raises(liftnn.LiftError) as error:
        nnx.bridge.Module()
    assert str(error.value) == (
        "nnx.bridge.Module of Flax is not in liftnn.compat.nnx: it is for modules in the style of Linen, which Flax "
        "has for experiments.\nWrite a module, and put Linen modules into it with nnx.bridge.ToNNX."
    )
    assert not hasattr(nnx.bridge, "__wrapped__")
    assert nnx.wrappers.ToNNX is nnx.bridge.ToNNX


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'liftnn\.compat\.nnx' has no attribute 'nonsense'"):
        nnx.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(REMOVED))
def test_a_name_that_flax_has_removed_is_an_attribute_error_that_says_what_to_write(name):
    assert not hasattr(flax.nnx, name)
    assert not hasattr(nnx, name)
    with raises(
        liftnn.errors.AttributeNameError,
        f"module 'liftnn.compat.nnx' has no attribute {name!r}, which Flax NNX has removed.\n{REMOVED[name]}",
    ):
        getattr(nnx, name)


def python(code):
    """Run code in a new process and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.thorough
def test_liftnn_does_not_import_the_stand_in():
    assert python("import sys, liftnn; print('liftnn.compat' in sys.modules)") == "False"


@pytest.mark.thorough
def test_the_stand_in_does_not_import_flax():
    assert python("import sys\nfrom liftnn.compat import nnx\nprint('flax' in sys.modules)") == "False"


STAND_IN = """
import sys, warnings
warnings.simplefilter("ignore")
from liftnn.compat import nnx as ours
import flax
sys.modules["flax.nnx"] = flax.nnx = ours
import flax.nnx
import flax.nnx as nnx
from flax import nnx as again
from flax.nnx import statelib, filterlib, graph, variablelib, rnglib, traversals, helpers, spmd
from flax.nnx.statelib import State, to_flat_state
from flax.nnx.nn import linear, initializers
from flax.nnx.nn.linear import Linear
from flax.nnx.nn.normalization import BatchNorm
from flax.nnx.transforms import compilation
from flax.nnx.transforms.transforms import eval_shape
from flax.nnx.training import metrics, optimizer
from flax.nnx.graph import GraphDef
print(nnx is ours, again is ours, flax.nnx is ours, State is ours.State, Linear is ours.Linear,
      GraphDef is ours.GraphDef, linear.Linear is ours.Linear, nnx.metrics.Average is ours.Average,
      to_flat_state is ours.to_flat_state)
"""


@pytest.mark.thorough
def test_the_stand_in_replaces_the_module_flax_nnx():
    assert set(python(STAND_IN).split()) == {"True"}


def modules():
    """The names of the modules below the stand-in."""
    folder = pathlib.Path(nnx.__file__).parent
    return sorted(m.name for m in pkgutil.walk_packages([str(folder)], "liftnn.compat.nnx."))


@pytest.mark.parametrize("module", modules())
def test_a_module_below_has_the_names_of_the_one_in_flax(module):
    ours = importlib.import_module(module)
    theirs = importlib.import_module(module.replace("liftnn.compat", "flax"))
    for name in getattr(ours, "__all__", ()):
        assert hasattr(theirs, name) or name in vars(nnx), name
        is_one = vars(theirs).get(name) is vars(flax.nnx).get(name)
        if name in vars(nnx) and is_one and not isinstance(getattr(ours, name), types.ModuleType):
            assert getattr(ours, name) is getattr(nnx, name), name


@pytest.mark.parametrize("module", ["linear", "attention", "recurrent", "lora"])
def test_the_default_initializers_draw_the_numbers_of_flax(module):
    theirs = importlib.import_module(f"flax.nnx.nn.{module}")
    ours = importlib.import_module(f"liftnn.compat.nnx.nn.{module}")
    names = [name for name in vars(theirs) if name.startswith("default_")]
    for name in names:
        actual, expected = (getattr(m, name)(jax.random.key(0), (4, 3)) for m in (ours, theirs))
        assert actual.tobytes() == expected.tobytes()
    assert names


CLASSES = sorted(name for name in nnx.__all__ if isinstance(getattr(nnx, name), type))


@pytest.mark.parametrize("name", CLASSES)
def test_the_annotations_of_a_class_resolve(name):
    assert [key for key in typing.get_type_hints(getattr(nnx, name)) if key.startswith("_")] == []
