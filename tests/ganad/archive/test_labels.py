"""Labels from a CSV, and which labels are normal, by the user's word."""

import pytest

from ganad.archive.labels import Naming
from ganad.archive.manifest import write_manifest
from ganad.errors import ArchiveError, ConfigError


@pytest.fixture
def photos(tmp_path):
    """Six empty images: three classes, one of them in the root."""
    root = tmp_path / "photos"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "3.png", "4.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def index(photos, tmp_path):
    """A function: (label, abnormal) by name, after indexing with a CSV and options."""

    def index(text=None, encoding="utf-8", columns=("label", "abnormal"), **options):
        labels = None
        if text is not None:
            labels = str(tmp_path / "labels.csv")
            (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
        manifest = write_manifest([str(photos)], str(tmp_path / "out"), labels=labels, **options)
        index.manifest = manifest
        rows = manifest.table().to_pylist()
        return {row["name"]: tuple(row[column] for column in columns) for row in rows}

    return index


def refused(index, error=ConfigError, **options):
    with pytest.raises(error) as caught:
        index(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("normal", "abnormal", "expected"),
    [
        ((), (), {"cat": None, "dog": None}),
        (("cat",), (), {"cat": False, "dog": True}),
        ((), ("dog",), {"cat": False, "dog": True}),
        (("cat",), ("dog",), {"cat": False, "dog": True}),
        (("cat", "dog"), (), {"cat": False, "dog": False}),
    ],
)
def test_named_labels(index, normal, abnormal, expected):
    facts = index(normal=normal, abnormal=abnormal)
    assert dict(facts.values()) == {**expected, None: None}


def test_labels_of_neither_kind_stay_open():
    naming = Naming(["a"], ["b"])
    assert [naming.judge(label) for label in ("a", "b", "c", None)] == [False, True, None, None]


def test_the_users_word_counts_more_than_a_name(index, photos):
    (photos / "cat").rename(photos / "good")
    assert dict(index(abnormal=["good"]).values()) == {"good": True, "dog": False, None: None}


@pytest.mark.parametrize("kind", ["normal", "abnormal"])
def test_a_label_that_no_image_has(index, tmp_path, kind):
    message = refused(index, **{kind: ["cats"]})
    assert message.startswith(f"'cats' is named as a {kind} label and no image has it")
    assert message.endswith("the labels are cat, dog")
    assert not (tmp_path / "out").exists()


def test_a_label_named_twice(index):
    assert "is named normal and abnormal" in refused(index, normal=["cat"], abnormal=["cat"])


def test_a_csv_replaces_the_labels_of_the_folders(index):
    facts = index("path,label\ncat/1.png,tabby\n./3.png,none\n")
    assert facts == {
        "cat/1.png": ("tabby", None),
        "3.png": ("none", None),
        "cat/2.png": (None, None),
        "dog/1.png": (None, None),
        "dog/2.png": (None, None),
        "4.png": (None, None),
    }
    assert index.manifest.labels == {"none": 1, "tabby": 1}
    assert list(facts)[:2] == ["3.png", "4.png"]  # the order of the listing stays


def test_all_columns_and_absolute_paths(index, photos):
    text = "name,label,abnormal,mask,split\n"
    text += f"{photos}/cat/1.png,a,true,masks/1.png,test\n3.png,b,0,s3://bucket/m.png,TRAIN\n"
    text += "4.png,,,,\n"
    facts = index(text, columns=("label", "abnormal", "mask", "split"))
    assert facts["cat/1.png"] == ("a", True, str(photos.parent / "masks/1.png"), "test")
    assert facts["3.png"] == ("b", False, "s3://bucket/m.png", "train")
    assert facts["4.png"] == (None, None, None, None)


@pytest.mark.parametrize("key", ["path", "uri", "name", "Path", " URI "])
def test_names_of_the_key_column(index, key):
    assert index(f"{key},label\n3.png,x\n")["3.png"] == ("x", None)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_quotes_and_a_byte_order_mark(index, delimiter):
    text = delimiter.join(["path", "label"]) + "\r\n" + delimiter.join(['"3.png"', '"a, b"'])
    assert index(text, encoding="utf-8-sig")["3.png"] == ("a, b", None)


def test_a_normal_name_in_a_csv_tells_the_others(index):
    facts = index("path,label,abnormal\n3.png,OK,\n4.png,dent,\ncat/1.png,odd,no\n")
    assert (facts["3.png"], facts["4.png"]) == (("OK", False), ("dent", True))
    assert facts["cat/1.png"] == ("odd", False)  # what the CSV says counts more
    assert facts["dog/1.png"] == (None, None)


def test_named_labels_of_a_csv(index):
    facts = index("path,label\n3.png,x\n4.png,y\n", abnormal=["y"])
    assert (facts["3.png"], facts["4.png"]) == (("x", False), ("y", True))
    message = refused(index, text="path,label\n3.png,x\n", abnormal=["dog"])
    assert message.endswith("the labels are x")


def test_lines_that_name_no_image_are_reported(index, tmp_path):
    index("path,label\n3.png,x\nnope.png,y\n3.PNG,z\n")
    assert (
        f"{tmp_path}/labels.csv: 2 lines name no image, the first nope.png" in index.manifest.notes
    )


def test_a_csv_that_names_no_image_at_all(index, tmp_path):
    message = refused(index, text="path,label\nphotos/3.png,x\n")
    assert message.startswith(f"{tmp_path}/labels.csv: names none of the images")
    assert "photos/3.png" in message
    assert message.endswith("such as 3.png")
    assert "it has no lines" in refused(index, text="path,label\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\n3.png,x\n", "its first line names the columns file, label: give path (or"),
        ("path,class\n3.png,x\n", "its first line names the columns path, class: give path (or"),
        ("", "its first line names the columns nothing"),
        ("path,label\n,x\n", "line 2 has no path"),
        ("path,label,abnormal\n3.png,x,maybe\n", "line 2 has abnormal 'maybe'"),
        ("path,label,split\n4.png,x,\n3.png,x,dev\n", "line 3 has split 'dev'"),
        ("path,label\n3.png,x\n4.png,x\n3.png,y\n", "lines 2 and 4 disagree about 3.png"),
    ],
)
def test_what_is_wrong_in_a_csv(index, tmp_path, text, said):
    message = refused(index, text=text)
    assert message.startswith(f"{tmp_path}/labels.csv: ")
    assert said in message


def test_images_that_the_csv_does_not_name_are_reported(index, photos, tmp_path):
    """They had the labels of their folders, which the CSV replaces."""
    facts = index(f"path,label\n3.png,x\n{photos}/4.png,y\n")
    assert facts["cat/1.png"] == (None, None)
    (note,) = index.manifest.notes
    assert note == (
        f"{tmp_path}/labels.csv: has no line for 4 of the images, the first cat/1.png; they have "
        f"no label, because a CSV replaces the labels of the folders"
    )


def test_rows_of_delimiters_alone_and_the_line_sep_are_skipped(index):
    """Excel writes both."""
    text = "sep=;\npath;label;abnormal;\n3.png;x;;\n;;;\n ; ;\n4.png;y;;\n;;;\n"
    facts = index(text)
    assert (facts["3.png"], facts["4.png"]) == (("x", None), ("y", None))
    message = refused(index, text="sep=;\npath;abnormal;label\n3.png;maybe;x\n")
    assert "line 3 has abnormal 'maybe'" in message


def test_a_line_said_twice_is_no_conflict(index):
    assert index("path,label\n3.png,x\n3.png,x\n")["3.png"] == ("x", None)


def test_a_csv_that_is_not_utf8(index):
    assert "is not a CSV in UTF-8" in refused(
        index, text="path,label\nä.png,x\n", encoding="latin-1"
    )


def test_a_csv_that_is_not_there(photos, tmp_path):
    with pytest.raises(ArchiveError, match=r"^none\.csv: there is no such file"):
        write_manifest([str(photos)], str(tmp_path / "out"), labels="none.csv")


def test_a_csv_on_s3_labels_objects(s3, tmp_path):
    for name in ("a.png", "b.png"):
        s3.put(f"labelled/{name}", b"1")
    labels = s3.put("labelled/labels.csv", b"path,label\ns3://labelled/a.png,x\nb.png,y\n")
    manifest = write_manifest(["s3://labelled"], str(tmp_path / "out"), labels=labels)
    assert manifest.table(["label"])["label"].to_pylist() == ["x", "y"]


def test_split_and_mask_of_the_layout_stay(image_folder, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\ntest/crack/000.png,hair\n")
    manifest = write_manifest(
        [str(image_folder)], str(tmp_path / "out"), labels=str(tmp_path / "labels.csv")
    )
    (row,) = [row for row in manifest.table().to_pylist() if row["label"]]
    assert (row["label"], row["split"]) == ("hair", "test")
    assert row["mask"].endswith("ground_truth/crack/000_mask.png")
