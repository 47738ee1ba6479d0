"""The search of the site, in a real browser, finds first what a reader means."""

import pytest
from tests.docs import browser

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(browser.find() is None, reason="needs Chromium"),
]

# The page that comes first; with an anchor, its best section too.
FIRST = {
    "adam": "/guides/optimizers/",
    "attention": "/api/layers/#liftnn.MultiHeadAttention",
    "batchnorm": "/api/layers/#liftnn.BatchNorm",
    "bfloat16": "/guides/mixed_precision/",
    "change the learning rate": "/guides/optimizers/",
    "cheat sheet": "/cheat_sheet/",
    "checkpoint": "/guides/saving_and_loading/",
    "compilation cache": "/guides/performance/",
    "conv": "/api/layers/#liftnn.Conv",
    "count parameters": "/guides/looking_inside/",
    "custom layer": "/guides/custom_layers/",
    "custom transform": "/guides/custom_transforms/",
    "data loading": "/guides/data_loading/",
    "dataloader": "/guides/data_loading/",
    "debug": "/guides/debugging/",
    "decode": "/guides/generation/",
    "disable_jit": "/guides/debugging/",
    "donate": "/guides/performance/",
    "dropout": "/api/layers/#liftnn.Dropout",
    "ema": "/guides/optimizers/",
    "ensemble": "/guides/ensembles/",
    "equinox": "/coming_from/equinox/",
    "error": "/errors/",
    "export": "/guides/exporting/",
    "faq": "/faq/",
    "filters": "/api/filters/",
    "fine-tuning": "/guides/fine_tuning/",
    "flax": "/coming_from/flax_nnx/",
    "freeze": "/guides/fine_tuning/",
    "freeze layers": "/guides/fine_tuning/",
    "frozen": "/guides/fine_tuning/",
    "generate text": "/guides/generation/",
    "getting started": "/learn/quick_start/",
    "glossary": "/glossary/",
    "grad": "/api/transforms/#liftnn.grad",
    "gradient accumulation": "/guides/optimizers/",
    "gradient clipping": "/guides/optimizers/",
    "grain": "/guides/data_loading/",
    "haiku": "/coming_from/haiku/",
    "hyperparameter sweep": "/guides/ensembles/",
    "init": "/api/functions/",
    "install": "/#install",
    "jit": "/api/transforms/#liftnn.jit",
    "keras": "/coming_from/keras/",
    "kv cache": "/guides/generation/",
    "leak": "/guides/debugging/",
    "learning rate": "/guides/optimizers/",
    "limits": "/limits/",
    "linear": "/api/layers/#liftnn.Linear",
    "linen": "/coming_from/linen/",
    "load": "/guides/saving_and_loading/",
    "load pytorch weights": "/guides/loading_weights/",
    "logging": "/guides/logging/",
    "lora": "/guides/lora/",
    "lstm": "/api/layers/#liftnn.LSTMCell",
    "many models": "/guides/ensembles/",
    "merge": "/api/graph/#liftnn.merge",
    "metrics": "/api/metrics/",
    "mixed precision": "/guides/mixed_precision/",
    "multiple gpus": "/guides/sharding/",
    "mypy": "/guides/type_checking/",
    "nan": "/guides/debugging/",
    "optimizer": "/guides/optimizers/",
    "performance": "/guides/performance/",
    "prefill": "/guides/generation/",
    "print model": "/guides/looking_inside/",
    "profile": "/guides/performance/",
    "pure function": "/guides/split_merge/",
    "pytorch": "/coming_from/pytorch/",
    "quick start": "/learn/quick_start/",
    "random keys": "/guides/randomness/",
    "random seed": "/guides/randomness/",
    "relu": "/api/functions/",
    "remat": "/guides/stacked_layers/",
    "replace layer": "/guides/surgery/",
    "resume training": "/guides/saving_and_loading/",
    "retrace": "/guides/debugging/",
    "rngs": "/api/random/",
    "rnn": "/guides/rnns/",
    "safetensors": "/guides/weight_files/",
    "save": "/guides/saving_and_loading/",
    "scan": "/api/transforms/#liftnn.scan",
    "schedule": "/guides/optimizers/",
    "shard_map": "/api/transforms/#liftnn.shard_map",
    "sharding": "/guides/sharding/",
    "slow": "/guides/performance/",
    "split": "/api/graph/#liftnn.split",
    "state": "/api/graph/#liftnn.State",
    "stale": "/faq/#why-does-jaxjitmodel-give-old-results",
    "state_dict": "/coming_from/pytorch/",
    "surgery": "/guides/surgery/",
    "tensorboard": "/guides/logging/",
    "test": "/guides/testing/",
    "tie weights": "/guides/surgery/",
    "transfer learning": "/guides/fine_tuning/",
    "tutorial": "/learn/1_module/",
    "vmap": "/api/transforms/#liftnn.vmap",
    "wandb": "/guides/logging/",
    "weight decay": "/guides/optimizers/",
    "wrong shape": "/guides/debugging/",
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
