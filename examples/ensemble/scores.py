"""How good probabilities are: accuracy, calibration and log-likelihood."""

from typing import NamedTuple

import numpy as np

BINS = 15


class Scores(NamedTuple):
    """The scores of one classifier on a set of examples.

    Args:
      accuracy: the fraction of examples whose likeliest class is right.
      calibration_error: the expected calibration error; see `Reliability`.
      loss: the mean of minus the logarithm of the probability of the right class.
    """

    accuracy: float
    calibration_error: float
    loss: float


class Reliability(NamedTuple):
    """Examples in bins of equal width by the probability of their likeliest class, the confidence.

    Args:
      counts: the number of examples of each bin, of shape (bins,).
      confidence: the mean confidence in each bin, zero where there is no example.
      accuracy: the fraction of examples in each bin that are right, zero where there is no example.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def calibration_error(self) -> float:
        """The mean over all examples of the difference between accuracy and confidence of their bin."""
        return float((self.counts * abs(self.accuracy - self.confidence)).sum() / self.counts.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Sorts examples into bins by confidence.

    Args:
      probabilities: of shape (..., n, classes), perhaps of several classifiers, which are then counted together.
      labels: of shape (n,).
      bins: the number of bins between 0 and 1.
    """
    confidence = probabilities.max(-1).ravel()
    right = (probabilities.argmax(-1) == labels).ravel()
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    at_least = np.maximum(counts, 1)
    confidences = np.bincount(index, confidence, minlength=bins) / at_least
    return Reliability(counts, confidences, np.bincount(index, right, minlength=bins) / at_least)


def score(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Returns the scores of one classifier: probabilities of shape (n, classes), labels of shape (n,)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return Scores(
        accuracy=float((probabilities.argmax(-1) == labels).mean()),
        calibration_error=reliability(probabilities, labels).calibration_error,
        loss=float(-np.log(np.maximum(chosen, np.finfo(chosen.dtype).tiny)).mean()),
    )


def report(name: str, probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Prints the scores of the members, and of the mean of their probabilities.

    Args:
      name: of the examples.
      probabilities: of shape (members, n, classes).
      labels: of shape (n,).
    """
    each = [score(x, labels) for x in probabilities]
    mean = Scores(*np.mean(each, axis=0).tolist())
    worst, best = min(each).accuracy, max(each).accuracy
    together = score(probabilities.mean(0), labels)
    print(f"{name}:")
    print(f"  one model: {describe(mean)} (accuracy from {worst:.4f} to {best:.4f})")
    print(f"  ensemble:  {describe(together)}", flush=True)


def describe(scores: Scores) -> str:
    """The three scores in one line."""
    return f"accuracy {scores.accuracy:.4f}, calibration error {scores.calibration_error:.4f}, loss {scores.loss:.4f}"
