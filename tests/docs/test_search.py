"""The search of the site, in a real browser, finds first what a reader means."""

import pytest
from tests.docs import browser

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(browser.find() is None, reason="needs Chromium"),
]

# The page that comes first; with an anchor, its best section too.
FIRST = {
    "attention": "/api/layers/#liftnn.MultiHeadAttention",
    "batchnorm": "/api/layers/#liftnn.BatchNorm",
    "checkpoint": "/guides/saving_and_loading/",
    "conv": "/api/layers/#liftnn.Conv",
    "count parameters": "/guides/looking_inside/",
    "custom transform": "/guides/custom_transforms/",
    "donate": "/errors/#donatederror",
    "dropout": "/api/layers/#liftnn.Dropout",
    "equinox": "/coming_from/",
    "error": "/errors/",
    "export": "/guides/exporting/",
    "flax": "/coming_from/",
    "grad": "/api/transforms/#liftnn.grad",
    "init": "/api/functions/",
    "install": "/#install",
    "jit": "/api/transforms/#liftnn.jit",
    "linear": "/api/layers/#liftnn.Linear",
    "load": "/guides/saving_and_loading/",
    "load pytorch weights": "/guides/loading_weights/",
    "lstm": "/api/layers/#liftnn.LSTMCell",
    "merge": "/api/graph/",
    "metrics": "/api/metrics/",
    "multiple gpus": "/guides/sharding/",
    "mypy": "/guides/type_checking/",
    "optimizer": "/api/optimizer/",
    "print model": "/guides/looking_inside/",
    "quick start": "/learn/quick_start/",
    "random seed": "/api/random/",
    "relu": "/api/functions/",
    "remat": "/api/transforms/#liftnn.remat",
    "resume training": "/guides/saving_and_loading/",
    "retrace": "/errors/#retraceerror",
    "rngs": "/api/random/",
    "safetensors": "/guides/weight_files/",
    "save": "/guides/saving_and_loading/",
    "scan": "/api/transforms/#liftnn.scan",
    "shard_map": "/api/transforms/#liftnn.shard_map",
    "sharding": "/guides/sharding/",
    "split": "/api/graph/#liftnn.split",
    "state": "/api/graph/#liftnn.State",
    "state_dict": "/guides/loading_weights/",
    "vmap": "/api/transforms/#liftnn.vmap",
}


@pytest.fixture(scope="session")
def found(site):
    """The groups of results of each query."""
    jobs = [{"kind": "search", "query": query} for query in FIRST]
    return dict(zip(FIRST, browser.look(site, jobs), strict=True))


@pytest.mark.parametrize("query", FIRST)
def test_the_first_result_is_what_a_reader_means(query, found):
    page, *sections = found[query][0]
    expected, _, anchor = FIRST[query].partition("#")
    assert page == expected, found[query][:3]
    if anchor:
        assert sections[0] == f"{expected}#{anchor}", found[query][:3]
