"""Metrics of how well scores separate abnormal from normal images (or pixels), with baselines.

A metric alone can mislead: if 80 of 100 images are abnormal, flagging every image has an F1 of
0.89. So every result includes n, the anomaly ratio and the value that a detector without skill
reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve

from ganad.evaluation.delong import Interval, Placements

AUPRO_LIMIT = 0.3
"""False-positive rate up to which AUPRO integrates (Bergmann et al., CVPR 2019, eq. 2)."""
CHANCE_AUPRO = AUPRO_LIMIT / 2


@dataclass(frozen=True)
class Ranking:
    """Threshold-free metrics of scores. If a class is missing, all metrics are None and `reason`
    says why; they are never NaN."""

    num: int
    num_abnormal: int
    auroc: float | None = None
    """Chance: 0.5."""
    auroc_interval: Interval | None = None
    """95 % confidence interval."""
    aupr: float | None = None
    """Average precision of the abnormal class. Chance: the anomaly ratio."""
    best_f1: float | None = None
    """F1 at the threshold that is optimal for these labels (an oracle's; not known in practice)."""
    best_threshold: float | None = None
    """An image is flagged where score >= best_threshold."""
    reason: str | None = None

    @property
    def anomaly_ratio(self) -> float | None:
        """Fraction of abnormal images; also the AUPR of chance and the precision of flagging every
        image."""
        return self.num_abnormal / self.num if self.num else None

    @property
    def flag_everything_f1(self) -> float | None:
        """F1 of flagging every image: 2r / (1 + r) for anomaly ratio r."""
        ratio = self.anomaly_ratio
        return None if ratio is None else 2 * ratio / (1 + ratio)


@dataclass(frozen=True)
class Flagged:
    """Metrics of flagging p_value < alpha, a threshold that is set without labels.

    A detector without skill flags a fraction alpha of each class: its recall and false-positive
    rate are alpha, its precision is the anomaly ratio. A metric whose denominator is zero is None.
    """

    alpha: float
    true_positives: int
    false_positives: int
    num_abnormal: int
    num_normal: int

    @property
    def precision(self) -> float | None:
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        return _share(self.true_positives, self.num_abnormal)

    @property
    def false_positive_rate(self) -> float | None:
        return _share(self.false_positives, self.num_normal)

    @property
    def f1(self) -> float | None:
        wrong = self.false_positives + self.num_abnormal - self.true_positives
        if self.num_abnormal == 0:
            return None
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)


def ranking(scores: np.ndarray, abnormal: np.ndarray) -> Ranking:
    """Compare scores (n,) with labels: bool (n,), True = abnormal.

    Raises ValueError for NaN or infinite scores; leave out images without a score.
    """
    scores, abnormal = _checked(scores, abnormal)
    num, num_abnormal = len(scores), int(abnormal.sum())
    if num_abnormal in (0, num):
        missing = "abnormal" if num_abnormal == 0 else "normal"
        return Ranking(num, num_abnormal, reason=f"no {missing} images, so nothing to compare")
    precision, recall, thresholds = precision_recall_curve(abnormal, scores)
    total = precision[:-1] + recall[:-1]
    f1 = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1)
    best = int(np.argmax(f1))
    placements = Placements.of(scores, abnormal)
    return Ranking(
        num,
        num_abnormal,
        auroc=placements.auroc,
        auroc_interval=placements.interval(),
        aupr=float(average_precision_score(abnormal, scores)),
        best_f1=float(f1[best]),
        best_threshold=float(thresholds[best]),
    )


def flagged(p_values: np.ndarray, abnormal: np.ndarray, alpha: float = 0.05) -> Flagged:
    """Count the images that p_value < alpha flags. Raises ValueError for NaN p-values."""
    p_values, abnormal = _checked(p_values, abnormal)
    flags = p_values < alpha
    return Flagged(
        alpha,
        int((flags & abnormal).sum()),
        int((flags & ~abnormal).sum()),
        int(abnormal.sum()),
        int((~abnormal).sum()),
    )


@dataclass(frozen=True)
class PixelResult:
    """Metrics of anomaly maps against masks; None with a reason, never NaN."""

    num_images: int
    num_regions: int
    pixel_ratio: float | None = None
    """Fraction of abnormal pixels."""
    auroc: float | None = None
    """Over all pixels of all images. Chance: 0.5."""
    aupro: float | None = None
    """Mean overlap with each connected defect, integrated over false-positive rates up to 0.3
    and divided by 0.3. Chance: 0.15."""
    auroc_error: float | None = None
    """Bound on the error of auroc that comes from keeping 20 bits of each value."""
    reason: str | None = None


class PixelMetrics:
    """Pixel AUROC and AUPRO of any number of images in constant memory (24 MiB).

    Map values are binned by the upper 20 bits of their float32 pattern (bins 0.05 % wide), which
    preserves their order. The mean over regions of the fraction of a region above t is another
    histogram, in which a pixel of a region of m pixels has weight 1/m.
    """

    _SHIFT = 12
    _BINS = 1 << (32 - _SHIFT)

    def __init__(self) -> None:
        self._normal = np.zeros(self._BINS, np.int64)
        self._abnormal = np.zeros(self._BINS, np.int64)
        self._regions = np.zeros(self._BINS, np.float64)
        self._num_images = 0
        self._num_regions = 0

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray | None) -> None:
        """Count one image: a map (h, w), larger = more anomalous, and its mask, bool (h, w).

        The mask of a normal image is None. Raises ValueError for NaN or if the shapes differ.
        """
        values = np.asarray(anomaly_map, np.float32)
        if np.isnan(values).any():
            raise ValueError("an anomaly map holds NaN: its image has no valid score")
        mask = np.zeros(values.shape, bool) if mask is None else np.asarray(mask, bool)
        if mask.shape != values.shape:
            raise ValueError(f"map {values.shape} and mask {mask.shape} differ in shape")
        bins = self._bins(values)
        self._normal += np.bincount(bins[~mask], minlength=self._BINS)
        self._num_images += 1
        if not mask.any():
            return
        # 8-connected, so that a thin diagonal scratch is one region.
        regions, num_regions = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(regions[mask], minlength=num_regions + 1)
        inside = bins[mask]
        self._abnormal += np.bincount(inside, minlength=self._BINS)
        self._regions += np.bincount(inside, 1 / sizes[regions[mask]], minlength=self._BINS)
        self._num_regions += num_regions

    def result(self) -> PixelResult:
        """Metrics over all images added so far."""
        num_normal, num_abnormal = int(self._normal.sum()), int(self._abnormal.sum())
        if num_normal == 0 or num_abnormal == 0:
            missing = "abnormal" if num_abnormal == 0 else "normal"
            return PixelResult(
                self._num_images, self._num_regions, reason=f"no {missing} pixels in the masks"
            )
        used = (self._normal + self._abnormal) > 0
        normal, abnormal = self._normal[used][::-1], self._abnormal[used][::-1]  # highest first
        false_positives = np.concatenate([[0.0], np.cumsum(normal) / num_normal])
        true_positives = np.concatenate([[0.0], np.cumsum(abnormal) / num_abnormal])
        overlap = np.concatenate([[0.0], np.cumsum(self._regions[used][::-1]) / self._num_regions])
        return PixelResult(
            self._num_images,
            self._num_regions,
            num_abnormal / (num_abnormal + num_normal),
            float(np.trapezoid(true_positives, false_positives)),
            _area_up_to(false_positives, overlap, AUPRO_LIMIT) / AUPRO_LIMIT,
            float((normal / num_normal) @ (abnormal / num_abnormal)) / 2,
        )

    def _bins(self, values: np.ndarray) -> np.ndarray:
        # Adding zero turns -0.0 into 0.0. Bit patterns of negative floats sort backwards: flip
        # them.
        patterns = (np.ascontiguousarray(values) + np.float32(0)).view(np.uint32)
        ordered = np.where(patterns >> 31, ~patterns, patterns | np.uint32(1 << 31))
        return (ordered >> self._SHIFT).astype(np.int64)


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Area under a curve (x, y), x ascending, from 0 to limit, which is interpolated linearly."""
    end = int(np.searchsorted(x, limit, side="right"))
    x_cut = np.append(x[:end], limit)
    y_cut = np.append(y[:end], np.interp(limit, x, y))
    return float(np.trapezoid(y_cut, x_cut))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _checked(values: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, np.float64)
    abnormal = np.asarray(abnormal)
    if abnormal.dtype != np.bool_:
        raise ValueError(f"labels must be bool (True = abnormal), not {abnormal.dtype}")
    if values.shape != abnormal.shape or values.ndim != 1:
        raise ValueError(
            f"{values.shape} values and {abnormal.shape} labels: give one label per value"
        )
    num_bad = int(np.count_nonzero(~np.isfinite(values)))
    if num_bad:
        raise ValueError(
            f"{num_bad} of {len(values)} values are NaN or infinite: leave images that have an "
            f"error out and count them"
        )
    return values, abnormal
