"""Text, CSV, TSV and JSON lines: each file is read correctly, or rejected with file, line and remedy."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest
from reading import Bad, Case, Rejected, reading

MULTILINE = {"multiline": True}
TAB_CSV = {"format": "csv", "delimiter": "tab"}
SEPARATED = [
    # Quoting
    Case("quoted.csv", 'id,sentence\n1,"a, ""b"""\n', ['a, "b"']),
    Case("lines.csv", 'id,sentence\n1,"a\nb, c"\n2,d\n', ["a\nb, c", "d"], MULTILINE),
    Case("lines-crlf.csv", b'id,sentence\r\n1,"a\r\nb"\r\n2,d\r\n', ["a\r\nb", "d"], MULTILINE),
    Case("lines-cr.csv", b'id,sentence\n1,"a\rb"\n', ["a\rb"], MULTILINE),
    Case("one-column-lines.csv", 'sentence\n"a\nb"\nc\n', ["a\nb", "c"], MULTILINE),
    Case("first-lines.csv", 'sentence,id\n"a\nb",1\nc,2\n', ["a\nb", "c"], MULTILINE),
    Case("joined.csv", 'id,sentence\n1,"a\n2,b"\n', Rejected("line 2: a quoted cell does not end in this line: use")),
    Case("joined1.csv", 'sentence\n"a\nb"\n', Rejected("--multiline-cells if it has several, or use --no-quoting")),
    Case("joined-cr.csv", 'id,sentence\n1,"a\r2,b"\n', Rejected("line 2: a carriage return (CR) in a quoted cell")),
    Case("joined-crlf.csv", 'id,sentence\r\n1,"a\r\n2,b"\r\n', Rejected("line 2: a quoted cell does not end")),
    Case("joined-other.csv", 'id,x,sentence\n1,"a,b\n2,c",d\n', Rejected("line 2: a quoted cell does not end")),
    Case("joined-header.csv", 'id,"sentence\n1,a"\n', Rejected("line 1: a quoted cell does not end in this line")),
    Case("crlf.csv", b'id,sentence\r\n1,"a"\r\n', ["a"]),
    Case("inner.csv", 'id,sentence\n1,5" disk\n2,say "a"\n', ['5" disk', 'say "a"']),
    Case("space.csv", 'id,sentence\n1, "a"\n2,b\n', [Bad("space.csv, line 2: a space before a quotation mark"), "b"]),
    Case("space-comma.csv", 'id,sentence\n1, "a, b"\n', [Bad("line 2: a space before a quotation mark: remove the")]),
    Case("space-first.csv", 'sentence,id\n  "a",1\n', [Bad("a space before a quotation mark: remove the")]),
    Case("space-tab.csv", 'id,sentence\n1,\t"a"\n', [Bad("a space before a quotation mark")]),
    Case("space-other.csv", 'id,x,sentence\n1, "x",a\n', [Bad("a space before a quotation mark")]),
    Case("space-header.csv", 'id, "sentence"\n1,a\n', Rejected("space-header.csv, line 1: a space before a quotation")),
    Case("space.tsv", 'id\tsentence\n1\t "a"\n', [Bad("a space before a quotation mark")]),
    Case("space-tab.tsv", 'id\tx\tsentence\n1\t\t"a"\n', ["a"]),
    Case("space-none.csv", 'id,sentence\n1, "a"\n', [' "a"'], {"quoting": False}),
    Case("space-inner.csv", 'id,sentence\n1,a "b"\n2," ""c"""\n3,"d, ""e"""\n', ['a "b"', ' "c"', 'd, "e"']),
    Case("space-lines.csv", 'id,sentence\n1,"a\n ""b"""\n2, "c"\n', ['a\n "b"', Bad("line 4: a space")], MULTILINE),
    Case("after.csv", 'id,sentence\n1,"a" b\n', Rejected("line 2: text after a closing quotation mark")),
    Case("backslash.csv", 'id,sentence\n1,"a \\"b\\""\n', Rejected("--no-quoting")),
    Case("open.csv", 'id,sentence\n1,a\n2,"b\n3,c\n', Rejected("open.csv, line 3: a quoted cell does not end in this")),
    Case("open-end.csv", 'id,sentence\n1,a\n2,"b\n', Rejected("line 3: the quotation mark that opens a cell has no")),
    Case("open-lines.csv", 'id,sentence\n1,a\n2,"b\n3,c\n', Rejected("line 3: the quotation mark that op"), MULTILINE),
    Case("open-header.csv", '"id,sentence\n1,a\n', Rejected("line 1: the quotation mark that op"), MULTILINE),
    Case("single.csv", "id,sentence\n1,'a, b'\n", [Bad("3 columns, where the header has 2")]),
    Case("none.csv", 'id,sentence\n1,"a\n2,b"\n', ['"a', 'b"'], {"quoting": False}),
    Case("none-comma.csv", 'id,sentence\n1,"a, b"\n', [Bad("3 columns, where")], {"quoting": False}),
    Case(
        "joined.tsv",
        'id\tlang\tsentence\n1\teng\t"Hello\n2\teng\tSo he said, bye"\n',
        Rejected("line 2: a quoted cell d"),
    ),
    Case("joined2.tsv", 'id\tsentence\n1\t"a\n2\tb\n3\tc\n4\td"\n5\te\n', Rejected("line 2: a quoted cell does")),
    Case("joined-tab.csv", 'id\tsentence\n1\t"a\n2\tb"\n', Rejected("line 2: a quoted cell"), {"delimiter": "tab"}),
    Case("joined-as-csv.tsv", 'id\tsentence\n1\t"a\n2\tb"\n', Rejected("line 2: a quoted cell"), TAB_CSV),
    Case("joined3.tsv", 'id\tsentence\n1\t"a\n2\tb\n3\tc\n', Rejected("line 2: a quoted cell does not end in this")),
    Case("joined4.tsv", 'sentence\n"a\nb"\n', Rejected("use --no-quoting")),
    Case("joined5.tsv", 'sentence\tid\n"a\t1\nb"\t2\n', Rejected("line 2: a quoted cell does not end in this line")),
    Case("joined6.tsv", 'a\tb\tsentence\n1\t"x\ty"\n', [Bad("2 columns, where the header has 3; use --no-quoting")]),
    Case("joined7.tsv", '1\t"a\n2\tb"\n', Rejected("line 1: a quoted"), {"header": False, "column": "2"}),
    Case("joined.none.tsv", 'id\tsentence\n1\t"a\n2\tb"\n', ['"a', 'b"'], {"quoting": False}),
    Case("lines-as-csv.tsv", 'id\tsentence\n1\t"a\n2\tb"\n', ["a\n2\tb"], {**TAB_CSV, **MULTILINE}),
    Case("lines.tsv", 'id\tsentence\n1\t"a\nb"\n2\tc\n', ["a\nb", "c"], MULTILINE),
    Case("lines2.tsv", 'sentence\tid\n"a\nb\nc"\t1\nd\t2\n', ["a\nb\nc", "d"], MULTILINE),
    Case("tab.tsv", 'id\tsentence\n1\t"a\tb"\n', ["a\tb"]),
    Case("quoted.tsv", 'id\tsentence\n1\t"a ""b"""\n2\tsay "c"\n', ['a "b"', 'say "c"']),
    Case("after.tsv", 'id\tsentence\n1\t"a" b\n', Rejected("--no-quoting")),
    Case("comma.tsv", "id\tsentence\n1\ta, b\n", ["a, b"]),
    # Numbers of cells
    Case("comma.csv", "id,sentence\n1,Hello\n2,Well, that is it\n", ["Hello", Bad("line 3: 3 columns, where the hea")]),
    Case("comma1.csv", "sentence\nHello\nWell, that\n", ["Hello", Bad("comma1.csv, line 3: 2 columns, where the hea")]),
    Case(
        "comma2.csv",
        "id,title,sentence\n1,A,b\n2,Well, ok,c\n",
        ["b", Bad("line 3: 4 columns, where the header has 3")],
    ),
    Case("short.csv", "id,sentence,lang\n1,a,en\n2,b\n3,c,en\n", ["a", Bad("2 columns, where the header has 3"), "c"]),
    Case("short1.csv", "id,sentence\n1,a\n\n2\n", ["a", Bad("short1.csv, line 4: 1 column, where the header has 2")]),
    Case("after-lines.csv", 'id,sentence\n1,"a\nb"\n2,c,d\n', ["a\nb", Bad("line 4: 3 columns")], MULTILINE),
    Case("trailing.csv", "id,sentence,\n1,a,\n2,b,\n", ["a", "b"]),
    Case("trailing-header.csv", "id,sentence,\n1,a\n2,b\n", ["a", "b"]),
    Case(
        "trailing-some.csv",
        "id,sentence,\n1,a,\n2,b\n3,c,d\n4,e,f,\n",
        ["a", "b", Bad("a cell after column 2"), Bad("4 columns")],
    ),
    Case("unnamed-comma.csv", "id,title,sentence,\n1,x,a,\n2,Well, ok,b\n", ["a", Bad("a cell after column 3")]),
    Case("unnamed-one.csv", "sentence,\na,\nWell, b\n", ["a", Bad("a cell after column 1")]),
    Case("trailing-rows.csv", "id,sentence\n1,a,\n2,b,\n", ["a", "b"]),
    Case("trailing-rows2.csv", "id,sentence\n1,a,,\n2,b,,\n", ["a", "b"]),
    Case("trailing-first.csv", "id,sentence\n1,a,\n2,b\n", ["a", Bad("line 3: 2 columns, where the first row has 3")]),
    Case("trailing-later.csv", "id,sentence\n1,a\n2,b,\n", ["a", Bad("line 3: 3 columns, where the header has 2")]),
    Case("trailing-cell.csv", "id,sentence\n1,a,\n2,Well, b\n", ["a", Bad("a cell after column 2, where the header")]),
    Case("trailing-one.csv", "sentence,\na,\nb,\n", ["a", "b"]),
    Case("excel.csv", "id,sentence,,,\n1,a,,,\n,,,,\n", ["a", ""]),
    Case("r.csv", '"id","sentence"\n"1","7","a"\n', [Bad("3 columns, where the header has 2")]),
    Case("index.csv", ",sentence\n0,a\n1,b\n", ["a", "b"]),
    Case("short.tsv", "id\tsentence\n1\ta\n2\n", ["a", Bad("short.tsv, line 3: 1 column, where the header has 2")]),
    Case(
        "long.tsv",
        "id\tsentence\n1\ta\tb\n",
        [Bad("3 columns, where the header has 2: cells that contain tab must be in")],
    ),
    # Empty cells and blank lines
    Case("empty-cell.csv", 'id,sentence\n1,\n2,""\n3,a\n', ["", "", "a"]),
    Case(
        "blank.csv",
        "sentence\na\n\nb\n",
        ["a", Bad('blank.csv, line 3: a blank line: write an empty sentence as ""'), "b"],
    ),
    Case("blank2.csv", "sentence\n\na\n\n\nb\n", [Bad("line 2"), "a", Bad("line 4"), Bad("line 5"), "b"]),
    Case("blank.tsv", "sentence\r\na\r\n\r\nb\r\n", ["a", Bad("blank.tsv, line 3"), "b"]),
    Case("blank-none.csv", "sentence\na\n\nb\n", ["a", Bad("use --format text"), "b"], {"quoting": False}),
    Case("blank-end.csv", "sentence\na\n\n\r\n", ["a", Bad("blank-end.csv, line 3"), Bad("line 4")]),
    Case("blank-end-two.csv", "id,sentence\n1,a\n\n\n", ["a"]),
    Case("blank-first.csv", "\na\nb\n", [Bad("line 1: a blank line"), "a", "b"], {"header": False}),
    Case("blank-quoted.csv", 'sentence\na\n""\nb\n', ["a", "", "b"]),
    Case("blank-start.csv", "\n\r\nsentence\na\n", ["a"]),
    Case("blank-two.csv", "id,sentence\n1,a\n\n2,b\n", ["a", "b"]),
    Case("blank-no-header.csv", "a\n\nb\n", ["a", Bad("line 2"), "b"], {"header": False}),
    # Columns
    Case("twice.csv", "sentence,sentence\na,b\n", Rejected("has 2 columns named 'sentence': rename all but one")),
    Case("twice.tsv", "sentence\tid\tsentence\na\t1\tb\n", Rejected("has 2 columns named 'sentence'")),
    Case("twice-other.csv", "id,id,sentence\n1,2,a\n", ["a"]),
    Case(
        "missing.csv", "a,b\n1,2\n", Rejected("no column 'sentence': choose one of a, b with --column, or use --no-h")
    ),
    Case(
        "missing.tsv", "3\teng\tHello\n", Rejected("has no column '3x': choose one of 3, eng, Hello"), {"column": "3x"}
    ),
    Case(
        "number.tsv", "3\teng\tHello\n", Rejected("'3' is a cell of the first line: use --no-header"), {"column": "3"}
    ),
    Case("numbers.csv", "0,1\nx,a\n", ["a"], {"column": "1"}),
    Case("year.csv", "id,2026\n1,a\n", ["a"], {"column": "2026"}),
    Case("case.csv", "Sentence\na\n", Rejected("has no column 'sentence': choose one of Sentence")),
    Case("space-name.csv", "id, sentence\n1,a\n", Rejected("choose one of id, ' sentence' with --column")),
    Case("semicolon.csv", "id;sentence\n1;a\n", Rejected("or use --delimiter ';'")),
    Case("excel-sep.csv", "sep=,\nid,sentence\n1,a\n", Rejected("; remove the first line, which only Excel reads")),
    Case("tab.csv", "id\tsentence\n1\ta\n", Rejected("or use --delimiter tab")),
    Case("comma-as.tsv", "id,sentence\n1,a\n", Rejected("or use --delimiter ','")),
    Case("named.csv", "id,title\n1,a\n", ["a"], {"column": "title"}),
    Case("unnamed.csv", "id,,x\n1,a,\n", ["a"], {"column": ""}),
    Case("unnamed-end.csv", "id,\n1,a\n2\n", ["a", Bad("1 column, where the header has 2")], {"column": ""}),
    Case("wide.csv", ",".join(f"column {n}" for n in range(500)) + "\n", Rejected("and 480 others")),
    Case("lines-name.csv", 'id,"a\nb"\n1,2\n', Rejected("choose one of id, a\\nb with"), MULTILINE),
    # Options
    Case("semicolon-option.csv", "id;sentence\n1;a, b\n", ["a, b"], {"delimiter": ";"}),
    Case("pipe-option.csv", 'id|sentence\n1|"a|b"\n', ["a|b"], {"delimiter": "|"}),
    Case("section.csv", "id§sentence\n1§a\n", ["a"], {"delimiter": "§"}),
    Case("tab-option.csv", "id\tsentence\n1\ta, b\n", ["a, b"], {"delimiter": "\\t"}),
    Case("header1.csv", "a\nb\n", ["a", "b"], {"header": False}),
    Case("header2.csv", "1,a\n2,b\n", ["a", "b"], {"header": False, "column": "2"}),
    Case("header3.tsv", '3\teng\t"Hello"\n4\teng\tBye\n', ["Hello", "Bye"], {"header": False, "column": "3"}),
    Case("header4.csv", "1,a\n", Rejected("has 2 columns: choose one by its number with --column"), {"header": False}),
    Case("header5.csv", "1,a\n", Rejected("--column is a number from 1 to 2"), {"header": False, "column": "sentence"}),
    Case("header6.csv", "1,a\n", Rejected("--column is a number from 1 to 2"), {"header": False, "column": "0"}),
    Case(
        "header7.csv", "1,a\n", Rejected("--column is a number from 1 to 2"), {"header": False, "column": "9" * 5_000}
    ),
    Case(
        "header8.csv",
        "1,a\n2\n",
        ["a", Bad("line 2: 1 column, where the first row has 2")],
        {"header": False, "column": "2"},
    ),
    # Empty files
    Case("empty.csv", "", []),
    Case("empty.tsv", "", []),
    Case("mark.csv", b"\xef\xbb\xbf", []),
    Case("header.csv", "sentence\n", []),
    Case("header-line.csv", "sentence", []),
    Case("blank-only.csv", "\n\r\n\n", []),
    Case("empty-no-header.csv", "", [], {"header": False, "column": "2"}),
    # Characters
    Case("nul.csv", "id,sentence\n1,a\n2,b\0c\n", Rejected("nul.csv, line 3: a zero byte")),
    Case("latin.csv", b'sentence\n"a\nb"\n\xff\n', Rejected("latin.csv, line 4: byte 1 of it (0xff)"), MULTILINE),
    Case("long.csv", "sentence\na\n" + "x" * 262_145 + "\nb\n", ["a", Bad("line 3: longer than 262,144 bytes"), "b"]),
    Case("longest.csv", "sentence\n" + "é" * 131_072 + "\n", ["é" * 131_072]),
    Case("mixed.csv", "id,sentence\n1,a\r2,b\n", Rejected("mixed.csv, line 2: a carriage return (CR)")),
]
LINES = [
    Case("empty.txt", "", []),
    Case("mark.txt", b"\xef\xbb\xbf", []),
    Case("mark-line.txt", b"\xef\xbb\xbf\n", [""]),
    Case("mark16.txt", codecs.BOM_UTF16_LE, []),
    Case("lines.txt", "a\n\n b \n\n", ["a", "", " b ", ""]),
    Case("mixed-lf.txt", "a\r\nb\nc\r\n", ["a", "b", "c"]),
    Case("mixed-cr.txt", "a\nb\rc\nd\n", ["a", Bad("mixed-cr.txt, line 2: a carriage return (CR)"), "d"]),
    Case("cr-end.txt", "a\nb\r", ["a", "b"]),
    Case(
        "cr.txt", "a\rb\rc", Rejected("cr.txt, line 1: a carriage return (CR) without a line feed: convert line ends")
    ),
    Case("cr-long.txt", "abcdefghi\r" * 100_000, Rejected("cr-long.txt, line 1: a carriage return (CR)")),
    Case("quotes.txt", '"a\tb\n"c,d"\n', ['"a\tb', '"c,d"']),
    Case("nul.txt", "a\n" * 5_000 + "b\0c\n", Rejected("nul.txt, line 5001: a zero byte")),
    Case("zeros.txt", "a\nb\n" + "\0" * 100, Rejected("zeros.txt, line 3: a zero byte")),
    Case("latin.txt", b"a\ncaf\xe9\n", Rejected("latin.txt, line 2: byte 4 of it (0xe9) is not UTF-8")),
    Case("cut.txt", "a\nb本".encode()[:-1], Rejected("cut.txt, line 2: byte 2 of it (0xe6) is not UTF-8")),
    Case("surrogate.txt", b"a\xed\xa0\x80\n", Rejected("surrogate.txt, line 1: byte 2 of it (0xed)")),
    Case("overlong.txt", b"\xc0\xaf\n", Rejected("byte 1 of it (0xc0) is not UTF-8")),
    Case(
        "cut16.txt", codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le")[:-1], Rejected("cut16.txt, line 2: character 1")
    ),
    Case(
        "pair16.txt", codecs.BOM_UTF16_LE + b"a\0\n\0\0\xd8b\0\n\0", Rejected("pair16.txt, line 2: character 1 of it")
    ),
    Case("long.txt", "a\n" + "x" * 262_145 + "\nb\n", ["a", Bad("long.txt, line 2: longer than 262,144 bytes"), "b"]),
    Case("longer.txt", "é" * 900_000 + "\nb\n", [Bad("longer.txt, line 1: longer than 262,144 bytes: split it"), "b"]),
    Case("longest.txt", "é" * 131_072 + "\r\nb", ["é" * 131_072, "b"]),
    Case("long-cr.txt", "x" * 262_144 + "\r\r\r\r\nb", [Bad("line 1: longer than 262,144 bytes"), "b"]),
    Case("column.txt", "a\n", Rejected("is read as text, which has no columns for --column"), {"column": "title"}),
    Case("keep.txt", "a\n", Rejected("has no columns for --keep: leave out --keep"), {"keep": ("id",)}),
    Case("binary.txt", b"PK\x03\x04a\n", Rejected("is not text but a zip archive or an Excel sheet")),
    Case("xz.txt", b"\xfd7zXZ\x00abc", Rejected("compressed with xz")),
    Case("parquet.txt", b"PAR1abc", Rejected("use --format parquet")),
    Case("letters.txt", "BZh is not bzip2\n", ["BZh is not bzip2"]),
    # JSON lines
    Case("empty.jsonl", "", []),
    Case("blank.jsonl", "\n \r\n\t\n", []),
    Case("strings.jsonl", '"a"\n{"sentence": "b"}\n""\n', ["a", "b", ""]),
    Case("blanks.jsonl", '\n"a"\n\n\n"b"\n', ["a", "b"]),
    Case("mark.jsonl", b'\xef\xbb\xbf"a"\n', ["a"]),
    Case("separators.jsonl", '{"sentence": "a\u2028b\u0085c"}\n', ["a\u2028b\u0085c"]),
    Case("escapes.jsonl", '"\\ud83d\\ude00 \\u00e9\\n\\u0000"\n', ["\U0001f600 é\n\0"]),
    Case("spaces.jsonl", '  {"sentence":\t"a"}  \n', ["a"]),
    Case("column.jsonl", '{"title": "a"}\n', ["a"], {"column": "title"}),
    Case("ndjson.ndjson", '{"sentence": "a"}\n', ["a"]),
    Case("null.jsonl", '"a"\n{"sentence": null}\n"b"\n', ["a", Bad("line 2: 'sentence' is null, where a string"), "b"]),
    Case("number.jsonl", '{"sentence": 5}\n', [Bad("'sentence' is 5, where a string is expected")]),
    Case("nan.jsonl", '{"sentence": NaN}\n', [Bad("'sentence' is NaN, where a string is expected")]),
    Case("nan-other.jsonl", '{"sentence": "a", "x": NaN}\n', ["a"]),
    Case("bool.jsonl", '{"sentence": true}\n', [Bad("'sentence' is true")]),
    Case("list.jsonl", '{"sentence": ["a"]}\n', [Bad("'sentence' is a list, where a string is expected")]),
    Case("object.jsonl", '{"sentence": {"text": "a"}}\n', [Bad("'sentence' is an object, where a string")]),
    Case(
        "twice.jsonl", '{"sentence": "a", "sentence": "b"}\n', [Bad("several fields named 'sentence': rename all but")]
    ),
    Case("twice-escaped.jsonl", '{"sentence": "a", "s\\u0065ntence": "b"}\n', [Bad("several fields named 'sentence'")]),
    Case("twice-other.jsonl", '{"x": 1, "x": 2, "sentence": "b"}\n', ["b"]),
    Case("twice-inner.jsonl", '{"x": {"sentence": 1, "sentence": 2}, "sentence": "b"}\n', ["b"]),
    Case("missing.jsonl", '{"a": 1}\n"b"\n', [Bad("line 1: no field 'sentence': choose one of a with"), "b"]),
    Case("no-fields.jsonl", "{}\n", [Bad("choose one of none with --column")]),
    Case(
        "bare.jsonl", '"a"\n5\nnull\n[1]\n', ["a", Bad("5, where an object"), Bad("null, where"), Bad("a list, where")]
    ),
    Case(
        "array.jsonl", '[{"sentence": "a"}]\n', Rejected("array.jsonl, line 1: a JSON array, where an object per line")
    ),
    Case("array-lines.jsonl", '[\n{"sentence": "a"},\n', Rejected("jq -c '.[]'")),
    Case("pretty.jsonl", '{\n  "sentence": "a"\n}\n', Rejected("an object in several lines")),
    Case("pair.jsonl", '"\\ud800"\n"a"\n', [Bad("line 1: an unpaired surrogate"), "a"]),
    Case("pair2.jsonl", '{"sentence": "a\\uDC00\\ud800"}\n', [Bad("an unpaired surrogate")]),
    Case("pair-other.jsonl", '{"x": "\\ud800", "sentence": "a"}\n', ["a"]),
    Case(
        "broken.jsonl",
        '"a"\n{"sentence"\n"b"\n',
        ["a", Bad("line 2: not JSON: Expecting ':' delimiter (column 1"), "b"],
    ),
    Case("two.jsonl", '{"sentence": "a"} {"sentence": "b"}\n', [Bad("not JSON: Extra data (column 19)")]),
    Case("quotes.jsonl", "{'sentence': 'a'}\n", [Bad("not JSON")]),
    Case("cut.jsonl", '"a"\n{"sentence": "b', ["a", Bad("cut.jsonl, line 2: not JSON")]),
    Case("deep.jsonl", "{" + '"sentence":{' * 99_999 + "\n" + '"a"\n', [Bad("nested too deeply"), "a"]),
    Case("digits.jsonl", '{"sentence": "a", "x": ' + "9" * 9_999 + "}\n", [Bad("not JSON that can be read: Exceeds")]),
    Case("cr.jsonl", '{"sentence": "a"}\r{"sentence": "b"}\r', Rejected("cr.jsonl, line 1: a carriage return (CR)")),
    Case("cr-space.jsonl", '{"sentence":\r"a"}\n', ["a"]),
    Case("cr-later.jsonl", '"a"\n"b"\r"c"\n', ["a", Bad("cr-later.jsonl, line 2: not JSON: a carriage return")]),
    Case("nul.jsonl", '"a"\n"b\0"\n', Rejected("nul.jsonl, line 2: a zero byte")),
    Case("latin.jsonl", b'"a"\n"caf\xe9"\n', Rejected("latin.jsonl, line 2: byte 5 of it (0xe9) is not UTF-8")),
    Case("long.jsonl", '"' + "x" * 262_145 + '"\n"b"\n', [Bad("line 1: longer than 262,144 bytes: split it"), "b"]),
    Case("long-line.jsonl", '{"x": "' + "x" * (16 << 20) + '"}\n"b"\n', [Bad("longer than 16,777,216 bytes"), "b"]),
]


@pytest.mark.parametrize("case", SEPARATED, ids=[case.id for case in SEPARATED])
def test_csv_and_tsv_are_read_or_rejected(tmp_path: Path, case: Case) -> None:
    case.check(tmp_path)


@pytest.mark.parametrize("case", LINES, ids=[case.id for case in LINES])
def test_text_and_json_lines_are_read_or_rejected(tmp_path: Path, case: Case) -> None:
    case.check(tmp_path)


def test_cell_that_a_stray_quotation_mark_opens_is_bounded(tmp_path: Path) -> None:
    rows = "".join(f"{number},{'x' * 1_000}\n" for number in range(18_000))
    joined = Rejected("line 3: a cell of more than 16,777,216")
    Case("open.csv", f'id,sentence\n1,a\n2,"b\n{rows}', joined, MULTILINE).check(tmp_path)
    Case("long.csv", "id,sentence\n" + "x" * (17 << 20), Rejected("line 2: longer than 16,777,216")).check(tmp_path)
    Case("many.csv", "id,sentence\n" + "1,a," * (5 << 20), Rejected("line 2: longer than")).check(tmp_path)


@pytest.mark.parametrize("format", ["text", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--delimiter", {"delimiter": ";"}),
        ("--no-header", {"header": False}),
        ("--no-quoting", {"quoting": False}),
        ("--multiline-cells", {"multiline": True}),
    ],
)
def test_options_of_csv_are_rejected_for_other_formats(
    tmp_path: Path, format: str, option: str, value: dict[str, Any]
) -> None:
    path = tmp_path / "in.x"
    path.write_text('"sentence"\n' if option != "--no-quoting" else "sentence\n")
    read = reading([str(path)], format=format, **value)
    if format in ("csv", "tsv"):
        assert read == (["sentence"] if option == "--no-header" else [])
    else:
        assert [str(item) for item in read] == [f"{option} applies to CSV and TSV, not to {format}"]
