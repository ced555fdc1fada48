"""Globs: within a name, over folders, and what a matching folder takes along."""

import pytest

from ganad.archive.walk import Pattern, expand_braces, is_glob, split_glob
from ganad.errors import ArchiveError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.png", "a.png", True),
        ("*.png", "b/a.png", False),
        ("*/a.png", "b/a.png", True),
        ("*/a.png", "a.png", False),
        ("**/a.png", "a.png", True),
        ("**/a.png", "b/c/a.png", True),
        ("**/a.png", "b/c/a.jpg", False),
        ("b/**", "b/c/a.png", True),
        ("b/**/c/*.png", "b/c/a.png", True),
        ("b/**/c/*.png", "b/x/c/y/c/a.png", True),
        ("b/**/c/*.png", "b/x/c/y/a.png", False),
        ("**/**/a.png", "a.png", True),
        ("**", "a.png", True),
        ("?.png", "a.png", True),
        ("?.png", "ab.png", False),
        ("[ab]/x.png", "a/x.png", True),
        ("[!ab]/x.png", "a/x.png", False),
        ("*.PNG", "a.png", False),
        ("c*", "cat/deep/a.png", True),
        ("*/good", "part/good/a.png", True),
        ("*/good", "part/bad/a.png", False),
        ("*/good", "part", False),
        ("a.*", "axb", False),
    ],
)
def test_matching(pattern, path, matches):
    assert Pattern(tuple(pattern.split("/"))).matches(path.split("/")) is matches


def test_the_empty_pattern_matches_everything():
    assert Pattern().matches(["a", "b.png"])
    assert Pattern().literal_start == ""


def test_a_folder_where_nothing_can_match_is_known():
    pattern = Pattern(("a", "*", "x.png"))
    assert not pattern.step(pattern.begin(), "b")
    assert pattern.step(pattern.begin(), "a")


@pytest.mark.parametrize(
    ("uri", "folder", "parts"),
    [
        ("/data/*.png", "/data", ("*.png",)),
        ("/data/a?/**/x.png", "/data", ("a?", "**", "x.png")),
        ("/*.png", "/", ("*.png",)),
        ("s3://bucket/a/img_[0-9].png", "s3://bucket/a", ("img_[0-9].png",)),
        ("s3://bucket/*", "s3://bucket", ("*",)),
    ],
)
def test_the_folder_before_the_first_wildcard(uri, folder, parts):
    assert is_glob(uri)
    assert split_glob(uri) == (folder, Pattern(parts))


def test_what_paths_begin_with():
    assert split_glob("s3://bucket/a/img_[0-9]*.png")[1].literal_start == "img_"
    assert split_glob("s3://bucket/**/img.png")[1].literal_start == ""
    assert not is_glob("s3://bucket/a b/c(1).png")


def test_braces_expand_as_in_a_shell():
    assert expand_braces("s-{000..002}.tar") == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert expand_braces("{a,b}/*.png") == ["a/*.png", "b/*.png"]
    for literal in ("a.png", "x{1}.png", "a{b", "${HOME}"):
        assert expand_braces(literal) == [literal]
    with pytest.raises(ArchiveError, match="its braces expand to more than 100,000 names"):
        expand_braces("{1..10000000}")
