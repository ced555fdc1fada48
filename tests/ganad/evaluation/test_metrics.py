import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from ganad.evaluation.metrics import PixelMetrics, flagged, ranking


def test_by_hand():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    result = ranking(scores, np.array([False, False, True, True]))
    assert (result.num, result.num_abnormal, result.anomaly_ratio) == (4, 2, 0.5)
    assert result.auroc == 0.75  # 3 of 4 pairs are in order
    assert result.aupr == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.best_f1 == pytest.approx(0.8)  # flag 0.35 and above: 2 hits, 1 false
    assert result.best_threshold == 0.35
    assert result.flag_everything_f1 == pytest.approx(2 / 3)
    assert result.reason is None


def test_best_f1_is_the_maximum_over_thresholds_and_never_below_flagging_everything():
    rng = np.random.default_rng(0)
    for ratio in (0.05, 0.5, 0.9):
        abnormal = rng.random(300) < ratio
        scores = np.round(rng.normal(size=300) - 0.5 * abnormal, 1)  # worse than chance, with ties
        result = ranking(scores, abnormal)
        by_hand = max(f1_score(abnormal, scores >= t) for t in np.unique(scores))
        assert result.best_f1 == pytest.approx(by_hand)
        assert result.best_f1 >= result.flag_everything_f1 - 1e-12
        assert f1_score(abnormal, scores >= result.best_threshold) == pytest.approx(by_hand)


def test_figures_do_not_change_when_scores_are_rescaled():
    rng = np.random.default_rng(1)
    abnormal = rng.random(200) < 0.3
    scores = rng.normal(size=200) + abnormal
    first, second = ranking(scores, abnormal), ranking(np.exp(scores), abnormal)
    assert (first.auroc, first.aupr, first.best_f1) == (second.auroc, second.aupr, second.best_f1)


def test_constant_scores_are_no_better_than_the_baselines():
    abnormal = np.arange(10) < 3
    result = ranking(np.zeros(10), abnormal)
    assert result.auroc == 0.5
    assert result.aupr == pytest.approx(result.anomaly_ratio)
    assert result.best_f1 == pytest.approx(result.flag_everything_f1)


@pytest.mark.parametrize(("value", "missing"), [(False, "abnormal"), (True, "normal")])
def test_one_class_alone_gives_a_reason_and_no_figure(value, missing):
    result = ranking(np.arange(5.0), np.full(5, value))
    assert result.reason == f"no {missing} images, so nothing to compare"
    assert result.auroc is result.aupr is result.best_f1 is None


def test_nothing_at_all():
    result = ranking(np.zeros(0), np.zeros(0, bool))
    assert result.auroc is None
    assert result.anomaly_ratio is None
    assert result.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_scores_are_refused(bad):
    with pytest.raises(ValueError, match="1 of 3 values are NaN or infinite"):
        ranking(np.array([0.0, bad, 1.0]), np.array([True, False, True]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        flagged(np.array([0.0, bad, 1.0]), np.array([True, False, True]))


def test_labels_that_are_not_bool_are_refused():
    with pytest.raises(ValueError, match="bool"):
        ranking(np.zeros(2), np.array([0, 1]))


def test_flagged_counts():
    p_values = np.array([0.01, 0.05, 0.2, 0.04, 0.9, 0.8])
    abnormal = np.array([True, True, True, False, False, False])
    result = flagged(p_values, abnormal)
    assert (result.true_positives, result.false_positives) == (1, 1)  # 0.05 is not below 0.05
    assert result.precision == 0.5
    assert result.recall == result.false_positive_rate == pytest.approx(1 / 3)
    assert result.f1 == pytest.approx(2 / (2 + 1 + 2))


def test_flagged_without_a_class_has_no_rate():
    result = flagged(np.array([0.5, 0.01]), np.array([False, False]))
    assert result.recall is None
    assert result.f1 is None
    assert result.false_positive_rate == 0.5
    assert flagged(np.array([0.5]), np.array([True])).precision is None  # nothing was flagged


def pixels(maps, masks):
    metrics = PixelMetrics()
    for one, mask in zip(maps, masks, strict=True):
        metrics.add(one, mask)
    return metrics.result()


def exact_aupro(maps, masks, limit=0.3):
    """The definition, threshold by threshold."""
    from scipy import ndimage

    values = np.concatenate([m.ravel() for m in maps])
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        labels, num = ndimage.label(mask, np.ones((3, 3)))
        regions += [one[labels == i + 1] for i in range(num)]
    x, y = [0.0], [0.0]
    for t in np.unique(values)[::-1]:
        x.append(np.mean(normal >= t))
        y.append(np.mean([np.mean(region >= t) for region in regions]))
    grid = np.linspace(0, limit, 200_001)
    return np.trapezoid(np.interp(grid, x, y), grid) / limit


def random_case(seed, num=6, size=24):
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(num):
        mask = np.zeros((size, size), bool)
        for _ in range(rng.integers(0, 3)):
            top, left = rng.integers(0, size - 6, 2)
            mask[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = True
        maps.append((rng.normal(size=(size, size)) + 1.5 * mask).astype(np.float32))
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("seed", range(4))
def test_pixel_figures_agree_with_their_definitions(seed):
    maps, masks = random_case(seed)
    result = pixels(maps, masks)
    values, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate(masks).ravel()
    assert abs(result.auroc - roc_auc_score(truth, values)) <= result.auroc_error + 1e-12
    assert result.auroc_error < 1e-3
    assert result.aupro == pytest.approx(exact_aupro(maps, masks), abs=2e-3)
    assert result.pixel_ratio == pytest.approx(truth.mean())


def test_every_region_counts_alike_however_small():
    mask = np.zeros((32, 32), bool)
    mask[:16, :16] = True  # 256 pixels, found
    mask[30, 30] = True  # 1 pixel, missed
    found = mask.copy()
    found[30, 30] = False
    result = pixels([found.astype(np.float32)], [mask])
    assert result.num_regions == 2
    # Overlap is 0.5 before the first false positive and 0.5 + 0.5 x along the final tie.
    assert result.aupro == pytest.approx(0.5 + 0.5 * 0.15)
    assert result.auroc == pytest.approx(256 / 257 + 0.5 / 257)


def test_perfect_and_constant_maps():
    mask = np.zeros((20, 20), bool)
    mask[3:6, 3:6] = True
    perfect = pixels([mask.astype(np.float32)], [mask])
    assert perfect.auroc == 1
    assert perfect.aupro == pytest.approx(1)
    constant = pixels([np.zeros((20, 20))], [mask])
    assert constant.auroc == pytest.approx(0.5)
    assert constant.aupro == pytest.approx(0.15)


def test_negative_values_and_negative_zero_keep_their_order():
    values = np.array([[-3.0, -1.0, -0.0, 0.0, 1.0, 3.0]], np.float32)
    bins = PixelMetrics()._bins(values)[0]
    assert (np.diff(bins) >= 0).all()
    assert bins[2] == bins[3]
    assert len(set(bins)) == 5


def test_a_thin_diagonal_is_one_region():
    assert pixels([np.zeros((8, 8))], [np.eye(8, dtype=bool)]).num_regions == 1


def test_images_without_defects_are_normal_pixels_and_alone_give_a_reason():
    result = pixels([np.zeros((4, 4))], [None])
    assert result.auroc is None
    assert result.reason == "no abnormal pixels in the masks"
    metrics = PixelMetrics()
    assert metrics.result().reason


def test_bad_maps_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        PixelMetrics().add(np.full((2, 2), np.nan), None)
    with pytest.raises(ValueError, match="differ in shape"):
        PixelMetrics().add(np.zeros((2, 2)), np.zeros((3, 3), bool))
