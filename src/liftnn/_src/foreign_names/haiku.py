"""Names of Haiku, and what to write in liftnn."""

HAIKU_NAMES = """
liftnn: Transformed TransformedWithState MultiTransformed multi_transform_with_state without_state (Haiku)
    Modules hold their weights, so nothing is transformed before `liftnn.jit(model)`. {call}
liftnn: transform transform_with_state without_apply_rng multi_transform (Haiku)
    Modules hold their weights, so nothing is transformed before `liftnn.jit(model)`. {call}
liftnn: get_parameter get_state set_state (Haiku)
    {create}
liftnn: next_rng_key next_rng_keys PRNGSequence (Haiku)
    {rngs}
liftnn: nets (Haiku)
    Write `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.relu)`.
liftnn: dynamic_unroll static_unroll (Haiku)
    Write `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)))(sequence)`, where the batch comes first, unless
    `time_major=True`.
liftnn: VanillaRNN (Haiku)
    Write `liftnn.SimpleCell(2, 3, activation_fn=liftnn.relu, rngs=liftnn.Rngs(0))`, in a `liftnn.RNN`.
liftnn: layer_stack (Haiku)
    Write `liftnn.Stack(6, make)`.
liftnn: ExponentialMovingAverage EMAParamsTree (Haiku)
    Write `ema = liftnn.EMA(model, 0.999)`, then `ema.update(model)` and `ema.apply_to(model)(x)`.
liftnn: SNParamsTree (Haiku)
    Write `liftnn.SpectralNorm(model.first, rngs=liftnn.Rngs(0))`.
liftnn: maybe_next_rng_key reserve_rng_keys with_rng (Haiku)
    {rngs}
liftnn: get_params get_initial_state get_current_state (Haiku)
    {parameters}
liftnn: Bias (Haiku)
    A Param is added: `x + liftnn.Param(jnp.zeros(2))`.
liftnn: to_module transparent transparent_lift lift_with_state experimental (Haiku)
    Modules and functions mix: `liftnn.jit(lambda x: model(x))(x)`.
liftnn: custom_getter custom_creator custom_setter (Haiku)
    A Variable takes hooks: `liftnn.Param(jnp.ones(3), on_get_value=lambda variable, value: 2 * value)`.
liftnn: dropout (Haiku, PyTorch and Equinox)
    Write `liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))(x)`.
"""
