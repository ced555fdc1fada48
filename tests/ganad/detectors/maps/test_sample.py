import numpy as np

from ganad.detectors.maps.sample import PlaceSample


def sample(images: range, limit: int) -> PlaceSample:
    """Of images with ten places, each told apart by one number."""
    vectors = np.array([[[10 * i + p] for p in range(10)] for i in images], np.float32)
    return PlaceSample.of(limit, images, vectors)


def test_a_sample_does_not_depend_on_shards_or_their_order() -> None:
    whole = sample(range(30), 40)
    assert (len(whole), whole.num_images) == (40, 30)
    parts = [sample(range(i, i + 10), 40) for i in (0, 10, 20)]
    for order in (parts, parts[::-1], [PlaceSample.empty(40, 1), *parts]):
        total = order[0]
        for part in order[1:]:
            total = PlaceSample.merge([total, part])
        assert total.num_images == 30
        np.testing.assert_array_equal(total.priorities, whole.priorities)
        np.testing.assert_array_equal(total.vectors, whole.vectors)


def test_places_are_drawn_from_all_images_and_all_over_them() -> None:
    numbers = sample(range(100), 300).vectors[:, 0]
    assert len(set(numbers.tolist())) == 300
    # The mean of 300 out of 0..999 has the standard deviation 14.
    assert abs(numbers.mean() - 499.5) < 4 * 14
    assert set((numbers % 10).astype(int).tolist()) == set(range(10))
