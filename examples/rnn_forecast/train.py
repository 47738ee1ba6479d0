"""Trains a GRU on hourly series, then forecasts a week of series that it has not seen.

In training each step gets the true value of the hour before. A forecast feeds the network its own values, drawn from
what it predicts; many such paths make a median and an interval.
"""

import argparse
import sys
import time

import jax
import numpy as np
import optax

import data
import liftnn as nnx
import plots
from model import Array, Forecaster
from options import parse_options
from progress import Bar

INTERVAL = (0.05, 0.95)
"""The quantiles of the paths that bound the interval of a forecast."""


def loss_fn(model: Forecaster, values: Array, features: Array) -> jax.Array:
    """Minus the mean log-density of each value given those before, without the first day."""
    _, normal = model.read(values, features)
    return -normal.log_density(values[:, 1:])[:, data.DAY :].mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Forecaster, optimizer: nnx.Optimizer, values: Array, features: Array) -> jax.Array:
    """Updates the model and the optimizer in place; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, values, features)
    optimizer.update(model, grads)
    return loss


@nnx.jit(static_argnums=3)
def forecast(model: Forecaster, values: Array, features: Array, paths: int) -> jax.Array:
    """Returns paths of shape (paths, n, hours) that go on from the known values; each draws noise of its own."""
    draw = nnx.vmap(Forecaster.forecast, in_axes=(None, None, None), axis_size=paths)
    return draw(model, values, features)


def train(model: Forecaster, series: data.Series, options: argparse.Namespace) -> None:
    """Trains the model on windows of the series, and prints a line now and then."""
    length = series.values.shape[1]
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.steps // 10, options.steps
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    random = np.random.default_rng(options.seed)
    losses: list[jax.Array] = []
    start = time.perf_counter()
    bar = Bar(range(options.steps), label="step", size=options.batch_size * length, unit="hours")
    for step in bar:
        rows = random.choice(len(series.values), options.batch_size, replace=False)
        losses.append(train_step(model, optimizer, series.values[rows], series.features[rows]))
        if bar.due:
            bar.draw(f"loss {losses[-1]:.4f}")
        if (step + 1) % max(1, options.steps // 5) == 0:
            bar.wipe()
            part = losses[-max(1, options.steps // 20) :]
            print(
                f"step {step + 1}/{options.steps}: loss {np.mean(part):.4f}, {time.perf_counter() - start:.1f} s",
                flush=True,
            )


def baselines(known: np.ndarray, hours: int) -> dict[str, np.ndarray]:
    """Returns the forecasts to beat: the last value, and the values of a day and of a week before."""
    ago = {"last value": 1, "the day before": data.DAY, "the week before": data.WEEK}
    return {name: known[:, np.arange(hours) % n - n] for name, n in ago.items()}


def main() -> int:
    """Runs the example; returns its exit code."""
    start = time.perf_counter()
    options = parse_options()
    known, hours = options.known * data.DAY, options.days * data.DAY
    series = data.make(options.series, known + hours, options.seed)
    unseen = data.make(options.test_series, known + hours, options.seed + 1_000_000)
    rngs = nnx.Rngs(options.seed, noise=options.seed + 1)
    model = Forecaster(series.features.shape[-1], options.hidden, options.layers, rngs=rngs)
    print(
        f"{nnx.count_params(model):,} parameters, {options.series} series of {known + hours} hours, "
        f"seed {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    train(model, series, options)
    past, future = np.split(unseen.values, [known], axis=1)
    paths = np.asarray(forecast(model, past, unseen.features, options.paths))
    low, median, high = np.quantile(paths, (INTERVAL[0], 0.5, INTERVAL[1]), axis=0)
    forecasts = {
        **baselines(past, hours),
        "GRU": median,
        "the formula without its noise": unseen.noiseless[:, known:],
    }
    print(f"mean absolute error over {options.days} days of {options.test_series} series that were not seen:")
    for name, values in forecasts.items():
        print(f"  {name:30} {abs(values - future).mean():.4f}")
    inside = ((low <= future) & (future <= high)).mean()
    print(f"inside the interval of 90 %: {inside:.1%} of the values")
    plots.draw(
        past, future, (low, median, high), forecasts["the week before"], options.output / "forecast.png"
    )
    print(f"plot: {options.output / 'forecast.png'}")
    print(f"finished in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
