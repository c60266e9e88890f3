"""Tables of captions as people have them: every row that is wrong is named, in one short line."""

import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from jaxcon.data.readers.table import find_table, read_table
from jaxcon.data.splits import DataError
from tests.data.readers.tables import CSV, ROWS, write


def refusal(folder, text, name="captions.csv"):
    table = write(folder, text, name)
    with pytest.raises(DataError) as caught:
        read_table(find_table(folder))
    message = str(caught.value)
    assert str(table) in message
    assert message.isprintable()  # one line
    assert len(message) < 400 + len(str(folder)) * 2
    return message


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\r"),
        CSV + ",\n,\n\n",  # a spreadsheet's empty rows
        "number,image,caption\n" + "".join(f"7,{row}\n" for row in ROWS.splitlines()),
        CSV.replace("/", "\\"),
        "".join(f'"{a}","{b}"\n' for a, b in (row.split(",") for row in CSV.splitlines())),
        "\n,\n" + CSV,
        "sep=,\r\n" + CSV.replace("\n", "\r\n"),
        '"sep=,"\n' + CSV,
    ],
    ids=[
        *("plain", "BOM", "CRLF", "CR", "empty rows", "more columns", "backslashes", "quotes"),
        *("empty rows above", "Excel's note", "the note in quotes"),
    ],
)
def test_what_spreadsheets_write_is_read(folder, text):
    captions = read_table(write(folder, text))
    assert captions == {f"images/{i:02}.png": [f"number {i}"] for i in range(12)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.tsv", CSV.replace(",", "\t")),
        ("captions.csv", CSV.replace(",", "\t").replace("image\tcaption", "filepath\ttitle")),
        ("captions.tsv", CSV),
        ("metadata.csv", CSV.replace("image,caption", "file_name,text")),
    ],
)
def test_what_other_programs_write_is_read(folder, name, text):
    captions = read_table(write(folder, text, name))
    assert captions == {f"images/{i:02}.png": [f"number {i}"] for i in range(12)}


def test_tabs_leave_commas_and_quotes_to_the_captions(folder):
    table = 'filepath\ttitle\nimages/00.png\ta cat, grey\nimages/01.png\t"a ""red"" sun"\n'
    captions = read_table(write(folder, table))
    assert captions == {"images/00.png": ["a cat, grey"], "images/01.png": ['a "red" sun']}


def test_a_cell_may_hold_a_list_of_captions(folder):
    rows = [{"image": "images/00.png", "captions": ["a", " b "]}]
    text = json.dumps(rows[0]) + "\n"
    expected = {"images/00.png": ["a", "b"]}
    assert read_table(write(folder, text, "captions.jsonl")) == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "captions.parquet")
    assert read_table(folder / "captions.parquet") == expected


def test_captions_with_commas_quotes_and_lines_keep_them(folder):
    write(folder, 'image,caption\nimages/00.png,"a ""red"", round\nsun"\nimages/01.png,é\n')
    captions = read_table(find_table(folder))
    assert captions == {"images/00.png": ['a "red", round\nsun'], "images/01.png": ["é"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CSV.replace(",", ";"), "separated by semicolons, got image;caption; save it with commas"),
        (CSV.replace(",", "|"), "separated by bars"),
        ('"image";"caption"\n"images/00.png";"a cat, grey"\n', "separated by semicolons"),
        ("sep=;\nimage;caption\n", "separated by semicolons"),
        ("\n,\n" + CSV.replace(",", ";"), "row 3: cells seem to be separated by semicolons"),
    ],
)
def test_other_separators_are_named(folder, text, said):
    assert pytest.RaisesExc(DataError, match=said).matches(DataError(refusal(folder, text)))


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("Image,caption", "no column 'image' among Image, caption; rename 'Image' to 'image'"),
        ("image, caption", "rename ' caption' to 'caption'"),
        ("images,captions", "rename 'images' to 'image'"),
        ("filename,caption", "rename 'filename' to 'image'"),
        ("path,title", "rename 'path' to 'image'"),
        ("image,prompt", "no column 'caption' among image, prompt; rename 'prompt' to 'caption'"),
        ("image,Description", "rename 'Description' to 'caption'"),
        ("image,capton", "rename 'capton' to 'caption'"),
        ("a,b", "no column 'image' among a, b; they are named image, caption"),
        ("image,caption,caption", "two columns 'caption'; remove or rename one"),
    ],
)
def test_the_column_that_was_meant(folder, heading, said):
    assert said in refusal(folder, f"{heading}\nimages/00.png,a cat\n")


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ('images/00.png,"a cat\n' + ROWS, 2),
        (ROWS + 'images/00.png,"a cat\n', 14),
        (ROWS + 'images/00.png,"a" cat\n' + ROWS, 14),
        ('images/01.png,"two\nlines"\nimages/00.png,"a "red" cat"\n' + ROWS, 4),
    ],
)
def test_the_row_whose_quotes_do_not_match_is_named_by_its_line(folder, rows, row):
    message = refusal(folder, "image,caption\n" + rows)
    assert f"row {row}: the quotes that begin here do not match" in message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (CSV.replace("number 3", "café").encode("cp1252"), "row 5 is not UTF-8 (byte 0xe9)"),
        (
            CSV.replace(",", ";").replace("number 3", "café").encode("cp1252"),
            "row 5 is not UTF-8 (byte 0xe9), and its cells are separated by semicolons",
        ),
        (CSV.encode("utf-16"), "row 1 is not UTF-8 (UTF-16)"),
        (CSV.encode("utf-16-le"), "row 1 is not UTF-8 (UTF-16)"),
        (
            CSV.replace(",", "\t").encode("utf-16-be"),
            "(UTF-16), and its cells are separated by tabs",
        ),
        (CSV.replace("number 3", "a\0b"), "row 5 has a NUL character"),
        (b"\x89PNG\r\n" + bytes(100), "row 1 is not UTF-8"),
        (b"PK\x03\x04" + bytes(100), "it is an Excel workbook or a zip file"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "it is an Excel workbook"),
    ],
)
def test_other_encodings_are_named_with_the_row(folder, data, said):
    message = refusal(folder, data)
    assert said in message
    assert "save it as UTF-8 CSV" in message


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": LONG, "caption": "a"}, "there is no image xxxx"),
        ({"image": "images/" + "y" * 300 + ".png", "caption": "a"}, "(311 characters)"),
        ({"image": ["images/00.png"] * 1000, "caption": "a"}, "the image must be a text, got ["),
        ({"image": {"bytes": LONG, "path": None}, "caption": "a"}, "must be a text, got {'bytes'"),
        ({"image": "images/00.png", "caption": [LONG, 3]}, "the caption must be a text, got 3"),
        ({"image": "images/00.png", "caption": ["a", " "]}, "the caption is empty"),
        ({"image": "images/00.png", "captions": []}, "the captions is empty"),
        ({LONG: "images/00.png", "caption": "a"}, "no column 'image' among xxxx"),
        ([LONG], "expected an object with image and caption, got ['xxxx"),
        ({"image": "images", "caption": "a"}, "the image images is a folder; name a file in it"),
        ({"image": "a\0b", "caption": "a"}, r"a\x00b"),
        ({"image": "\ud800", "caption": "a"}, r"\ud800"),
        ({"image": "images/00.png", "caption": "a \ud800"}, "the caption has an invalid character"),
        ({"image": "https://example.org/a.png", "caption": "a"}, "is a web address"),
        (
            {"image": "a red circle", "caption": "images/00.png"},
            "columns image and caption swapped",
        ),
        ({"image": "images/00.PNG", "caption": "a"}, "images/00.png?"),
        ({"image": "images/00", "caption": "a"}, "images/00.png?"),
        ({"image": "Images/00.png", "caption": "a"}, "/images?"),
        ({"image": "images/0O.png", "caption": "a"}, "did you mean "),
        (
            {"image": "C:\\Users\\me\\captions.jsonl", "caption": "a"},
            "did you mean captions.jsonl?",
        ),
    ],
)
def test_values_are_cut_and_mended(folder, row, said):
    good = {"image": "images/01.png", "caption": "a"}
    message = refusal(folder, f"{json.dumps(good)}\n{json.dumps(row)}\n", "captions.jsonl")
    assert said in message
    assert "captions.jsonl row 2: " in message


def test_json_that_is_damaged(folder):
    assert "row 1: not JSON" in refusal(folder, '{"image": ' + LONG, "a.jsonl")
    assert "row 1: not JSON" in refusal(folder, "[" * 100_000, "a.jsonl")
    assert "row 1: not JSON" in refusal(folder, "[\n {}\n]", "a.jsonl")
    message = refusal(folder, "{}\n".encode("utf-16"), "a.jsonl")
    assert message.endswith("row 1 is not UTF-8 (UTF-16); save it as UTF-8")


def test_lines_of_json_end_where_files_end_them(folder):
    rows = [{"image": f"images/{i:02}.png", "caption": f"{i}\u2028\x85\x0b"} for i in range(12)]
    for end in ("\n", "\r\n", "\r"):
        text = end.join(json.dumps(row, ensure_ascii=False) for row in rows)
        assert read_table(write(folder, text, "a.jsonl")) == {
            row["image"]: [row["caption"].strip()] for row in rows
        }


def test_a_parquet_file_of_pictures_is_told_in_a_short_line(folder):
    picture = {"bytes": os.urandom(200_000), "path": "a.png"}
    for column in ([picture], [picture["bytes"]]):
        table = pyarrow.table({"image": column, "caption": ["a cat"]})
        pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet")
        with pytest.raises(DataError, match=r"must be a text, got .*parquet:PATH reads") as caught:
            read_table(find_table(folder))
        assert len(str(caught.value)) < 400


def test_parquet_of_categories_is_text(folder):
    names = pyarrow.array(["images/00.png", "images/01.png"]).dictionary_encode()
    table = pyarrow.table({"image": names, "caption": pyarrow.array(["a", "b"], "large_string")})
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    assert read_table(find_table(folder)) == {"images/00.png": ["a"], "images/01.png": ["b"]}
