"""Names of Haiku, and what to write in liftnn."""

HAIKU_NAMES = """
liftnn: transform transform_with_state without_apply_rng multi_transform (Haiku)
    Modules hold their weights, so nothing is transformed before `liftnn.jit(model)`. {call}
liftnn: get_parameter get_state set_state (Haiku)
    {create}
liftnn: next_rng_key next_rng_keys PRNGSequence (Haiku)
    {rngs}
liftnn: nets (Haiku)
    Write `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.relu)`.
"""
