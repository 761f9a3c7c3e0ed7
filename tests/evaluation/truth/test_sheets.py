"""CSV, TSV and spreadsheets: layouts, encodings, separators, marks, and what is refused instead of guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth import Truth, load_truth
from tests.evaluation.truth.reading import EXPECTED, read, table

LAYOUTS = {
    "long": "image,label\na/one.jpg,cat\na/one.jpg,dog\na/two.jpg,hot dog\nb/three.png,\na/one.jpg,cat\n",
    "columns in any order": (
        "split,Label,Image\nval,cat,a/one.jpg\nval,dog,a/one.jpg\nval,hot dog,a/two.jpg\nval,,b/three.png\n"
    ),
    "bars": "file_name,labels\na/one.jpg,cat|dog\na/two.jpg,hot dog\nb/three.png,\n",
    "semicolons and blank lines": "file_name,labels\r\n\r\na/one.jpg,cat; dog\r\na/two.jpg,hot dog\r\nb/three.png,\r\n",
    "commas": 'image,labels\na/one.jpg,"cat, dog"\na/two.jpg,hot dog\nb/three.png,\n',
    "commas without spaces": 'image,labels\na/one.jpg,"cat,dog"\na/two.jpg,hot dog\nb/three.png,\n',
    "lines in a cell": 'image,labels\na/one.jpg,"cat\ndog"\na/two.jpg,hot dog\nb/three.png,\n',
    "a list in a column called label": 'image,label\na/one.jpg,"cat, dog"\na/two.jpg,hot dog\nb/three.png,\n',
    "JSON lists": 'image_id,tags\na/one.jpg,"[""cat"", ""dog""]"\na/two.jpg,"[""hot dog""]"\nb/three.png,[]\n',
    "pandas lists": "image,labels\na/one.jpg,\"['cat', 'dog']\"\na/two.jpg,['hot dog']\nb/three.png,[]\n",
    "pandas tuples": "image,labels\na/one.jpg,\"('cat', 'dog')\"\na/two.jpg,\"('hot dog',)\"\nb/three.png,()\n",
    "NumPy arrays": "image,labels\na/one.jpg,\"['cat' 'dog']\"\na/two.jpg,['hot dog']\nb/three.png,[]\n",
    "tabs": "image\tlabels\na/one.jpg\tcat|dog\na/two.jpg\thot dog\nb/three.png\t\n",
    "delimited by semicolons": "image;labels\na/one.jpg;cat|dog\na/two.jpg;hot dog\nb/three.png;\n",
    "commas in names of a header with semicolons": (
        "image;labels, all\na/one.jpg;cat|dog\na/two.jpg;hot dog\nb/three.png;\n"
    ),
    "delimited by bars": "image|labels\na/one.jpg|cat;dog\na/two.jpg|hot dog\nb/three.png|\n",
    "a sep line": "sep=;\r\nimage;labels\r\na/one.jpg;cat|dog\r\na/two.jpg;hot dog\r\nb/three.png;\r\n",
    "empty cells at the end": "image,labels,,\na/one.jpg,cat|dog,,\na/two.jpg,hot dog,,,,\nb/three.png,,,\n,,,\n",
    "NIH": (
        "Image Index,Finding Labels,Follow-up #\na/one.jpg,cat|dog,0\na/two.jpg,hot dog,1\nb/three.png,No Finding,0\n"
    ),
    "numbers beside file names": (
        "image_id,file_name,labels\n17,a/one.jpg,cat|dog\n18,a/two.jpg,hot dog\n19,b/three.png,\n"
    ),
    "an image column of another name": "photograph,labels\na/one.jpg,cat|dog\na/two.jpg,hot dog\nb/three.png,\n",
    "a label column of another name": "image,seen\na/one.jpg,cat|dog\na/two.jpg,hot dog\nb/three.png,\n",
    "lower and upper case names": "image,labels\na/one.jpg,Cat|DOG\na/two.jpg,Hot-Dog\nb/three.png,\n",
    "wide": "image,cat,dog,hot dog\na/one.jpg,1,1,0\na/two.jpg,0,0,1\nb/three.png,0,0,0\n",
    "wide with an index": (
        ",filename,cat,dog,hot dog\n0,a/one.jpg,True,1.0,False\n1,a/two.jpg,False,0.0,TRUE\n2,b/three.png,False,0.0,0\n"
    ),
    "wide in words": "image,cat,dog,hot dog\na/one.jpg,yes,Yes,no\na/two.jpg,n,no,y\nb/three.png,no,no,no\n",
    "wide with other columns": (
        "Path,Sex,Age,cat,dog,hot dog\na/one.jpg,F,40,1,1,0\na/two.jpg,M,41,0,0,1\nb/three.png,F,42,0,0,0\n"
    ),
    "present": (
        "image,label,present\na/one.jpg,cat,1\na/one.jpg,dog,1\n"
        "a/two.jpg,hot dog,1\nb/three.png,cat,0\na/one.jpg,hot dog,0\n"
    ),
    "Open Images": (
        "ImageID,Source,LabelName,Confidence\na/one.jpg,v,cat,1\n"
        "a/one.jpg,v,dog,1.0\na/two.jpg,v,hot dog,1\nb/three.png,v,dog,0\n"
    ),
    "decisions": (
        "image,label,decision\na/one.jpg,cat,yes\na/one.jpg,dog,yes\n"
        "a/two.jpg,hot dog,yes\na/two.jpg,cat,no\nb/three.png,dog,unknown\n"
    ),
    "our export": "image_id,labels,scores\na/one.jpg,cat|dog,0.9|0.8\na/two.jpg,hot dog,0.7\nb/three.png,,\n",
}


def folded(truth: Truth) -> dict[str, set[str]]:
    vocabulary = table().name_index
    return {key: {vocabulary.find(name) or name for name in names} for key, names in truth.labels.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(tmp_path: Path, layout: str) -> None:
    assert folded(read(tmp_path, LAYOUTS[layout])) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("layout", ["bars", "tabs", "a sep line", "wide"])
def test_every_unicode_encoding_says_the_same(tmp_path: Path, layout: str, encoding: str) -> None:
    assert read(tmp_path, LAYOUTS[layout].encode(encoding), "unicode text.txt").labels == EXPECTED


@pytest.mark.parametrize(("first", "second"), [("cat dog", "hot dog"), ("dog  cat", ""), ("cat dog", "person bicycle")])
def test_cells_are_cut_at_spaces_where_every_word_is_a_label(tmp_path: Path, first: str, second: str) -> None:
    found = read(tmp_path, f"image,labels\na/one.jpg,{first}\na/two.jpg,{second}\n").labels
    whole = {second} if second == "hot dog" else set(second.split())
    assert found == {"a/one.jpg": {"cat", "dog"}, "a/two.jpg": whole}


def test_names_of_the_vocabulary_stay_whole_whatever_they_hold(tmp_path: Path) -> None:
    known = table(["salt, pepper", "[cat]", "a|b", "dog"])
    found = read(tmp_path, 'image,label\na/one.jpg,"salt, pepper"\na/two.jpg,[cat]\nb/three.png,a|b\n', known=known)
    assert found.labels == {"a/one.jpg": {"salt, pepper"}, "a/two.jpg": {"[cat]"}, "b/three.png": {"a|b"}}


def test_the_separator_option_decides(tmp_path: Path) -> None:
    text = 'image,labels\na/one.jpg,"cat / dog"\na/two.jpg,"salt, pepper"\n'
    assert read(tmp_path, text, separator="/").labels == {"a/one.jpg": {"cat", "dog"}, "a/two.jpg": {"salt, pepper"}}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('image,labels\na/one.jpg,"cat / dog"\n', "cat / dog"),
        ("image,labels\na/one.jpg,cat+dog\na/two.jpg,dog\n", "cat+dog"),
        ('image,labels\na/one.jpg,cat|person\na/two.jpg,"dog, zebra"\n', "dog, zebra"),
        ('image,label\na/one.jpg,"cat, striped"\na/two.jpg,dog\n', "cat, striped"),
        ("image,labels\na/one.jpg,cat dog\na/two.jpg,cat food\n", "cat dog"),
        ('image,labels\na/one.jpg,"[cat, dog]"\n', "[cat, dog]"),
        ('image,labels\na/one.jpg,"[\'cat\' ... \'dog\']"\n', "['cat' ... 'dog']"),
    ],
)  # fmt: skip
def test_a_cell_that_can_be_cut_in_two_ways_is_shown_and_refused(tmp_path: Path, text: str, cell: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, text)
    assert repr(cell) in error.value.message
    assert "--separator" in error.value.hint


def test_a_name_that_holds_the_separator_is_refused_inside_a_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'salt, pepper, dog'"):
        read(tmp_path, 'image,labels\na/one.jpg,"salt, pepper, dog"\n', known=table(["salt, pepper", "dog"]))


def test_labels_outside_the_vocabulary_do_not_stand_in_the_way(tmp_path: Path) -> None:
    found = read(tmp_path, 'image,labels\na/one.jpg,"cat, zebra"\na/two.jpg,"giraffe, okapi"\nb/three.png,bus stop\n')
    assert found.labels == {
        "a/one.jpg": {"cat", "zebra"},
        "a/two.jpg": {"giraffe", "okapi"},
        "b/three.png": {"bus stop"},
    }


def test_a_verified_absence_is_absent_and_what_no_line_names_is_not_judged(tmp_path: Path) -> None:
    text = "ImageID,LabelName,Confidence\na/one.jpg,cat,1\na/one.jpg,dog,0\na/two.jpg,dog,0\n"
    found = read(tmp_path, text)
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": set()}
    assert found.absent == {"a/one.jpg": {"dog"}, "a/two.jpg": {"dog"}}
    assert found.exhaustive  # no line names person, so that nobody looked for one
    assert found.unjudged("a/two.jpg") == {"cat"}


def test_without_a_verified_absence_what_is_not_named_is_absent(tmp_path: Path) -> None:
    found = read(tmp_path, "image,label,present\na/one.jpg,cat,1\na/two.jpg,dog,1\n")
    assert (found.absent, found.exhaustive, found.unjudged("a/one.jpg")) == (None, False, frozenset())


def test_a_pair_that_is_present_and_absent_is_not_judged(tmp_path: Path) -> None:
    found = read(tmp_path, "image,label,present\na/one.jpg,cat,1\na/one.jpg,cat,0\na/one.jpg,dog,1\n")
    assert (found.labels["a/one.jpg"], found.unjudged("a/one.jpg")) == ({"dog"}, {"cat"})
    assert "both present and absent" in found.warnings[0]
    wide = read(tmp_path, "image,cat,dog\na/one.jpg,1,1\na/one.jpg,0,1\na/one.jpg,1,\n")
    assert (wide.labels["a/one.jpg"], wide.unjudged("a/one.jpg")) == ({"dog"}, {"cat"})
    assert "not judged: 1" in wide.warnings[-1]


def test_gaps_and_uncertain_cells_of_a_wide_sheet_are_not_judged(tmp_path: Path) -> None:
    found = read(tmp_path, "image,cat,dog,person\na/one.jpg,1.0,,0.0\na/two.jpg,-1,uncertain,0\n")
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": set()}
    assert found.unknown == {"a/one.jpg": {"dog"}, "a/two.jpg": {"cat", "dog"}}


def test_columns_that_are_no_labels_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, "Path,Sex,Age,zebra,cat\na/one.jpg,F,40,1,1\n")
    assert found.names == ("cat",)
    assert found.notes == ("columns that are no labels of the vocabulary: Sex, Age, zebra",)
    assert read(tmp_path, "image,label,note\na/one.jpg,cat,nice\n").notes == ("columns that are not read: note",)


def test_text_about_an_image_is_not_taken_for_labels(tmp_path: Path) -> None:
    found = read(tmp_path, "image,caption,label\na/one.jpg,a cat and a dog,cat\na/two.jpg,one dog,dog\n")
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": {"dog"}}


def test_a_label_may_be_called_like_a_column(tmp_path: Path) -> None:
    known = table(["object", "tag", "file"])
    found = read(tmp_path, "image,object,tag,file\na/one.jpg,1,0,1\na/two.jpg,0,0,0\n", known=known)
    assert found.labels == {"a/one.jpg": {"object", "file"}, "a/two.jpg": set()}


def test_only_a_wide_sheet_names_labels_that_never_occur(tmp_path: Path) -> None:
    wide = read(tmp_path, "image,cat,dog\na/one.jpg,1,0\n")
    long = read(tmp_path, "image,label\na/one.jpg,cat\n")
    assert (wide.names, wide.exhaustive) == (("cat", "dog"), True)
    assert (long.names, long.exhaustive) == (("cat",), False)


def test_options_name_the_columns(tmp_path: Path) -> None:
    text = "image,file,label,truth\nx,a/one.jpg,person,cat\ny,a/two.jpg,person,dog\n"
    found = read(tmp_path, text, image_column="file", label_column="Truth")
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": {"dog"}}


def test_without_a_table_lists_are_cut_at_the_first_separator_that_occurs(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text('image,labels\n1.jpg,salt; pepper|[cat]\n2.jpg,[cat]\n3.jpg,"a, b"\n')
    assert load_truth(path).labels == {"1.jpg": {"salt; pepper", "[cat]"}, "2.jpg": {"[cat]"}, "3.jpg": {"a, b"}}


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("picked,cat\nx.jpg,1\n", "no column names the image; the columns are picked, cat", "--image-column"),
        ("image\na/one.jpg\n", "no column holds labels", "--label-column"),
        ("image,zebra\na/one.jpg,1\n", "no column holds labels .*; the columns are image, zebra", "--label-column"),
        ("image,cat\na/one.jpg,1\na/two.jpg,maybe\n", "line 3: 'maybe' in column 'cat'", "0 and 1"),
        ("image,cat\na/one.jpg,2\n", "line 2: '2' in column 'cat'", "0 and 1"),
        ("image,cat,dog\na/one.jpg,1,-1\na/two.jpg,-1,1\n", "never 0: -1 may mean absent or uncertain", "Write 0"),
        ("image,label,Confidence\na/one.jpg,cat,0.73\n", "line 2: '0.73' in column 'Confidence'", "Write 1"),
        ("image,label,seen\na/one.jpg,cat,1\na/one.jpg,dog,0\n", "column 'seen' holds yes and no", "`present`"),
        ("Bild;label;da\na/one.jpg;cat;ja\na/one.jpg;dog;nein\n", "column 'da' holds yes and no", "`present`"),
        ("image,label\na/one.jpg,cat,dog\n", "line 2: 3 fields where the header has 2", "double quotes"),
        ("sep=;\nimage;label\na/one.jpg\n", "line 3: 1 fields where the header has 2", "double quotes"),
        (
            "image,label_1,label_2\na/one.jpg,cat,dog\n",
            "several columns hold labels: label_1, label_2",
            "--label-column",
        ),
        ("image,label,score\na/one.jpg,cat,0.2\n", "line 2: '0.2' in column 'score'", "leave this column out"),
        ("image,label\n,cat\n", "line 2: there is no image", ""),
        ("image,label\n", "says nothing about any image", "CSV"),
        ("image,label\na/one.jpg,caf\xe9\n".encode("latin-1"), "neither JSON, Parquet nor a text in UTF-8", "UTF-8"),
        ('image,label\n"a/one.jpg"x,cat\n', "neither JSON, Parquet nor a text", "CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "neither JSON, Parquet nor a text in UTF-8", "UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_with_advice(tmp_path: Path, text: str | bytes, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        read(tmp_path, text)
    assert hint in error.value.hint


@pytest.mark.parametrize("option", ["image_column", "label_column"])
def test_an_option_that_names_no_column_lists_the_columns(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match="no column 'nope'") as error:
        read(tmp_path, "image,label\na/one.jpg,cat\n", known=None, **{option: "nope"})
    assert f"--{option.replace('_', '-')} names one of image, label" in error.value.hint


def test_boxes_with_flags_of_their_own_are_read(tmp_path: Path) -> None:
    text = "ImageID,LabelName,IsOccluded,IsGroupOf\na/one.jpg,cat,1,0\na/two.jpg,dog,0,1\n"
    assert read(tmp_path, text).labels == {"a/one.jpg": {"cat"}, "a/two.jpg": {"dog"}}


def test_what_was_read_is_described(tmp_path: Path) -> None:
    assert read(tmp_path, LAYOUTS["long"]).dialect == "CSV, a line per image and label (image, label)"
    assert read(tmp_path, LAYOUTS["NIH"]).dialect == "CSV, a line per image (Image Index, Finding Labels)"
    assert read(tmp_path, LAYOUTS["wide"]).dialect == "CSV, a column per label (image; 3 labels)"
