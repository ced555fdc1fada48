from ganad.features.records import full_name, native_size


def test_native_sizes():
    assert native_size("tf_efficientnet_b4.aa_in1k") == 380
    assert native_size("tf_efficientnetv2_b0") == 224  # trained at 192, tested at 224
    assert native_size("vit_tiny_patch16_224") == 224


def test_the_tag_is_always_named():
    assert full_name("tf_efficientnetv2_b0") == "tf_efficientnetv2_b0.in1k"
    assert full_name("tf_efficientnet_b4.aa_in1k") == "tf_efficientnet_b4.aa_in1k"
