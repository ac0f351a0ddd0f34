"""Hard texts for tokenizers, as escapes, so that this file is ASCII.

`texts()` returns (class, text) pairs in a fixed order. `make.py` samples random characters from `ALPHABET`.
"""
import random

# Every character that Unicode, Python or browsers treat as white space, and four that only look like it.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff"
)
USER_DEFINED = ["extra_token_id_1", "extra_token_id_2", "extra_token_id_3"]

HARD = {
    "empty": ["", " ", "     ", "\t\t", "\r\n\r\n", "\u3000\u3000", "\xa0\u2003\u2009", "\u200b\u200b", "\ufeff", "\x00"],
    "spaces": [
        # Each white-space character before, between (once and twice) or after words; three characters per text.
        *(f"{a}tea{b}for{c}{a}two{b}{b}cups{c}" for a, b, c in zip(BLANKS[0::3], BLANKS[1::3], BLANKS[2::3])),
        "   three before", "three after   ", "  two   inside  and   around  ",
        "column\tone\tcolumn\ttwo", "first line\nsecond line\n\n\nfifth line\n", "dos\r\nline\r\nends\r\n",
        " , , .", "a b  c   d    e     f", "\u3000\u5168\u89d2\u3000\u7a7a\u767d\u3000",
    ],
    "literal": [
        "<s>", "</s> ", "<unk>", "<pad>", "<s></s>", "<s> a sentence in its own brackets </s>", "x<s>y</s>z<unk>w",
        "< s > < / s >", "&lt;s&gt; &amp; <0x41> [CLS] [SEP] [MASK]", "\uff1cs\uff1e\uff1c/s\uff1e",
        "<S> <UNK> <mask> <|endoftext|> <bos><eos>",
    ],
    "metaspace": [
        "\u2581", "\u2581\u2581\u2581", "\u2581word\u2581", "two\u2581words", "two\u2581\u2581\u2581words", " \u2581 \u2581 ", "a \u2581b\u2581 c",
        "_under_ \u2581lower\u2581 \u2582\u2583\u2584", "\u2581.\u2581,\u2581!",
    ],
    "user-defined": [
        *USER_DEFINED,
        "extra_token_id_1extra_token_id_2extra_token_id_3", "extra_token_id_1 extra_token_id_1",
        "  extra_token_id_2  ", "glued:extra_token_id_3glued", "naextra_token_id_1me", " extra_token_id_1 a extra_token_id_2 b",
        "extra_token_id_ extra_token_id_4", "extra_token_id_11", "Extra_token_id_1 EXTRA_TOKEN_ID_2",
        "xtra_token_id_1 eextra_token_id_1", "extra_token_id_1\u0301", "\u00bdextra_token_id_2\ufdfa", "extra_token_id_3\u3000\u2581extra_token_id_3",
        "extra_token_\uff49d_2", "\u200bextra_token_id_1\u200b", "extra_\u00adtoken_id_1",
    ],
    "control": [
        "nul\x00in the middle", "\x00at both ends\x00", "\x01\x02\x03\x04\x05\x06\x07\x08", "bell\x07 back\x08space",
        "\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a", "\x1b[31mred\x1b[0m", "units\x1fand\x1erecords\x1dand\x1cfiles", "delete\x7fd",
        "\x80\x81\x82\x83\x84\x86 c1\x9bcontrol \x8d\x8e\x8f", " \x00 \x01 \x7f \x9f ",
    ],
    "invisible": [
        "zero\u200bwidth\u200bspace", "zero\u200cwidth\u200dnon\u200cjoiner", "\ufeffbyte order\ufeffmark\ufeff", "soft\u00adhy\u00adphen",
        "word\u2060joiner\u2061\u2062\u2063\u2064", "mongolian\u180evowel\u180bseparator", "combining\u034fgrapheme joiner",
        "\u115f\u1160\u3164\uffa0fillers",
        "annotation\ufff9base\ufffagloss\ufffb variation\ufe0e selectors\ufe0f\U000e0100",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "tag\U000e0001\U000e0065\U000e006e\U000e007fs",
    ],
    "emoji": [
        "\U0001f600", "\U0001f680\U0001f680\U0001f680 to the moon \U0001f315", "\U0001f44d\U0001f3fb\U0001f44d\U0001f3fd\U0001f44d\U0001f3ff",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f469\U0001f3fe\u200d\U0001f52c at work",
        "\U0001f1eb\U0001f1ee \U0001f1e7\U0001f1f7\U0001f1f0\U0001f1ea \U0001f1eb broken flag \U0001f1ee",
        "1\ufe0f\u20e3 2\ufe0f\u20e3 #\ufe0f\u20e3",
        "\u2764\ufe0f and \u2764 and \u2764\ufe0e",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f great\U0001f389work\U0001f38a!",
        "\U0001f3f3\ufe0f\u200d\U0001f308 \u263a\ufe0f \u2600\ufe0f\u2614\u26c4 \u260e",
        "\U0001fae0\U0001fab4\U0001f9cb new ones",
    ],
    "accents": [
        "cafe\u0301 cr\xe8me bru\u0302le\u0301e", "caf\xe9 cre\u0300me br\xfbl\xe9e", "A\u030angstro\u0308m \u212bngstr\xf6m",
        "Vie\u0323\u0302t Vi\u1ec7t Vie\u0302\u0323t",
        "i\u0307stanbul \u0130stanbul I\u0307stanbul \u0131l\u0131k",
        "n\u0303 \xf1 N\u0303 \xd1 \u0439\u0451 \u0438\u0306\u0435\u0308", "z\u0307o\u0301\u0142w \u017c\xf3\u0142w",
        "\u0301leading accent\u0301 \u0301alone \u0301", "\u304b\u3099\u304d\u3099\u306f\u309a \u304c\u304e\u3071",
        "\u0623\u0625\u0622 \u0627\u0654\u0627\u0655\u0627\u0653 \u0928\u093c\u0929 \u0915\u093c\u0958",
    ],
    "hangul": [
        "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", "\ud55c\uad6d\uc5b4\u1112\u1161\u11ab",
        "\u1100\u1100\u1161\u1161\u11a8\u11a8", "\ud558\u11ab \ud558\u3134",
        "\u314e\u314f\u3134\u3131\u315c\u3131 \uffa1\uffc2\uffa4 \uffbe", "\ua960\ua97c\ud7b0\ud7cb",
        "\u314b\u314b\u314b\u314b\u314b \u3160\u3160 \u314e\u314e \ubdc1\uc28d\ub2ed\ub2e8\ud2c0\uaed1",
    ],
    "width": [
        "\uff28\uff45\uff4c\uff4c\uff4f\uff0c \uff37\uff4f\uff52\uff4c\uff44\uff01",
        "\uff11\uff12\uff13\uff0e\uff14\uff15\uff05 \uffe5\uff16\uff17\uff18",
        "\uff76\uff9e\uff77\uff9e\uff78\uff9e \uff8a\uff9f\uff8b\uff9f \uff73\uff9e", "\uff76\uff80\uff76\uff85\uff84\uff8b\uff97\uff76\uff9e\uff85",
        "\uff9e\uff9f\uff70\uff65\uff62\uff63\uff61\uff64",
        "\u30ab\uff9e\u30ab\u3099\u30ac \u304b\uff9e \uff5f\uff60\uff5e\u301c~ \uff3f\uff0f\uff3c \uffe0\uffe1\uffe2\uffe3\uffe4\uffe8\uffed",
    ],
    "compat": [
        "\u337f \u32ff \u337b\u337c\u337d\u337e", "\ufdfa.", "\ufdfb \ufdf2 \ufdfc",
        "\xbd \u2153 \u215e 3\xbe \u2189 \u2460\u2461\u2473 \u2474 \u2488 \u24b6\u24e9 \u2776",
        "\u2160\u2163\u216f\u2170\u217f \ufb01 \ufb02 \ufb03 \ufb05 \ufb13 of\ufb01ce",
        "x\xb2 + y\xb3 = z\u2074 H\u2082O \u2122 \u2120 \xae \xa9 \u2116 \u2121 \u213b \u33a1 \u33a5 \u3392 \u33d1 \u339e \u33c2",
        "\u3300\u3314\u3327\u3336\u334d \u3220\u3231\u3239 \u3280\u3297 \u3260\u326e \u017f \u01c4\u01c6 \u0133 \u0149 \u1e9e \xdf",
        "\u2026 \u2025 \u2024 \u203c \u2047 \u2048 \u22ef \u2100 \u2109 \u2103 \u212a \u2126 \xb5 \u03bc \uf900\uf914\uf9d0\ufa10\u2f00\u2fd5\u2e9f",
        "\ufe8d\ufedf\ufecc\ufeae\ufe91\ufef4\ufe94 \ufefb \ufef7", "\ufe30\ufe31\ufe33\ufe35\ufe36\ufe50\ufe52\ufe68",
        "\xa8 \xaf \xb4 \xb8 \u02d8\u02d9\u02da\u02db\u02dc\u02dd \xaa \xba \u1d2c\u1d43\u02b0\u2071\u207f",
        "\u0132ssel\u0133k \u0675\u0677 \u0e33\u0eb3\u0f77 \u222c\u222d\u2a0c \u2033\u2034\u2057",
    ],
    "math": [
        "\U0001d400\U0001d41b\U0001d4d2\U0001d55d\U0001d7d8\U0001d7ff",
        "\u2200x\u2208\u211d: x\u2265\u221a2 \u21d2 x\xb2\u22652", "\u2211\u2099 1/n\xb2 = \u03c0\xb2/6 \u2248 1.6449",
        "\u2102 \u2115 \u211a \u2124 \u210f \u2113 \u2202\u2207\u222b",
    ],
    "combining": [
        "Z\u0336\u0310\u0347a\u0337\u033f\u0322l\u0334\u0301\u0316g\u0335\u0351\u0323o\u0338\u0342\u032d", "e" + "\u0301" * 40,
        "\u0300\u0301\u0302\u0303\u0304\u0305\u0306", "o\u0308\u0304 o\u0304\u0308 \u022b \u01d5",
        "a\u0327\u0301\u0328\u0302 \u1e09", "\u0e01\u0e49\u0e49\u0e49\u0e49\u0e33\u0e35\u0e34",
        "\u0628\u064e\u0651\u064f\u0652\u0670 \u0628\u0651\u064e", "\u05e9\u05c1\u05b8 \ufb2c \u05b8\u05c1\u05e9",
        "\u20dd\u20e0 a\u20dd 7\u20e0",
    ],
    "thai": [
        "\u0e19\u0e49\u0e33 \u0e19\u0e49\u0e4d\u0e32 \u0e19\u0e4d\u0e49\u0e32", "\u0e40\u0e40\u0e15\u0e48 \u0e41\u0e15\u0e48",
        "\u0e46\u0e46\u0e46 \u0e2f\u0e25\u0e2f \u0e50\u0e51\u0e52\u0e53", "\u0e48\u0e49\u0e4a\u0e4b",
    ],
    "rare": [
        "\u16a0\u16a2\u16a6\u16a8\u16b1\u16b2", "\U00010330\U00010331\U00010332 \U00012000\U00012157\U000123a7 cuneiform",
        "\U00013000\U00013080 \U000131cb", "\u1401\u14c4\u1483\u144e\u1450\u1466 \u13a0\u13c3\u13af \uab70",
        "\u2c00\u2c30 \u2c80\u2c81", "\u10d0\u10d1 \u10a0\u2d00 \u1c90 \u0531\u0561\u0587 \ufb15",
        "\u12a0\u121b\u122d\u129b \u1780\u17b6\u179a \u1000\u103c\u102e\u1038",
        "\u0f40\u0f0b\u0f41\u0f0d", "\u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02 \u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
        "\ua9a0\ua9b4 \u1b05\u1b36", "\u2d30\u2d4e\u2d30 \u07ca\u07de\u07cf \u0700\u0712\u0713",
        "\u5fc3 \u13a0 heart \U00010330 x",
    ],
    "fffd": ["\ufffd", "\ufffd\ufffd\ufffd", "bad\ufffdbyte", " \ufffd \ufffd\u0301"],
    "mixed": [
        "Moscow\u041c\u043e\u0441\u043a\u0432\u0430\u83ab\u65af\u79d1", "\u0440\u0430ypal p\u0430yp\u0430l",
        "\u6211want\u53bb\u30c8\u30a4\u30ec\ud654\uc7a5\uc2e4",
        "iPhone15\u306e\u4fa1\u683c\u306f\uffe5124,800\uff08\u7a0e\u8fbc\uff09",
        "\u03b1\u03b2\u03b3abc\u0430\u0431\u0432\u05d0\u05d1\u05d2\u0623\u0628\u062a C++\uc640 Rust\u3092 \u4f7f\u3063\u3066 \u0438 Go",
        "\u0e20\u0e32\u0e29\u0e32Thai\u4e0e\u0639\u0631\u0628\u064a",
        "hElLo WoRlD ALL CAPS \u0410\u0411\u0412\u0430\u0431\u0432 \u03a3\u03c3\u03c2",
    ],
    "bidi": [
        "\u0627\u0644\u0633\u0639\u0631 100 USD \u0641\u0642\u0637", "\u200f\u0645\u0631\u062d\u0628\u0627\u200e hello \u200f!",
        "\u202bright\u202c \u202aleft\u202c \u202dover\u202c \u202eride\u202c",
        "\u2066isolate\u2069 \u2067\u0639\u0632\u0644\u2069 \u2068first\u2069",
        "\u061c\u0661\u0662\u0663\u066b\u0664\u066a \u06f1\u06f2\u06f3",
        "\u0645\u0640\u0640\u0640\u0640\u0640\u0640\u062f \u0640 \u0640\u0640", "\u05e9\u05dc\u05d5\u05dd, world!",
        "\u206a\u206b\u206c\u206d\u206e\u206f old marks \ufd3e\u0622\u064a\u0629\ufd3f \u06dd \u06de",
    ],
    "long": [
        "a" * 300, "." * 300, "-" * 257, "0" * 255, "\u3042" * 200, "\u0627" * 128,
        "\ud558" * 99, "\u0436" * 127, "\u2581" * 100, "\U0001f600" * 64, "\u16a0" * 130, "\ufdfa" * 10, "e\u0301" * 120, "word " * 60,
    ],
    # Runs with several segmentations of nearly equal score, so that the order and precision of the sums decide.
    # sentencepiece 0.2.3 and 0.2.1 tokenize each of these differently.
    "ties": [
        "!" * 5, "'" * 19, "(" * 9, ")" * 14, "*" * 23, "/" * 7, ":" * 8, "e" * 6, "a" * 28, "-" * 37, "\u044e" * 5, "\u3084" * 5,
    ],
    "url": [
        "https://example.org/a/b-c_d?q=1&r=%20x#frag", "http://user@[2001:db8::1]:8080/", "mailto:jo.doe+tag@mail.example.com",
        "ftp://files.example.net/pub/\u30c6\u30b9\u30c8.tar.gz", "C:\\Users\\Ana\\Desktop\\new.txt", "../lib/../bin/./run.sh",
    ],
    "code": [
        "for (int i = 0; i < n; ++i) { sum += a[i]; }", "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }",
        "SELECT name, COUNT(*) FROM t WHERE x >= 10 GROUP BY name;", "{\"key\": [1, 2.5e-3, null, \"\\u00e9\"]}",
        "def f(x):\n\treturn x ** 2 if x else None", "<a href=\"#\">link</a><br/>",
    ],
    "digits": [
        "0", "-007", "3.14159265358979", "1,234,567.89 1.234.567,89 1 234 567,89", "+1 (555) 010-0199",
        "2024-02-29T23:59:59.999Z", "192.168.0.254 1e-12 6.022\xd710\xb2\xb3",
        "50%-75\u2030 \u0967\u0968\u0969 \u0e51\u0e52\u0e53 \u06f4\u06f5\u06f6",
        "\u4e00\u4e8c\u4e09\u5341\u767e\u5343\u842c \u58f9\u8cb3",
    ],
    "quotes": [
        "\u201cdouble\u201d \u2018single\u2019 \u201elow\u201c \xabguillemets\xbb \u2039single\u203a",
        "'' `` \u2032 \u2033 \u02bc it\u2019s it's it\u02bcs",
        "\u300c\u304b\u304e\u300d\u300e\u4e8c\u91cd\u300f\u3010\u5f37\u8abf\u3011",
        "--- \u2010\u2011\u2012\u2013\u2014\u2015 \u2212 \u30fc \u4e00",
    ],
    "noncharacter": ["\ufdd0\ufdef \ufffe \uffff", "end\U0001ffff \U0010fffe\U0010ffff", "x\ufdd5y\ufdd6z"],
    "private": ["\ue000\uf8ff", "logo \uf8ff inside", "\U000f0000\U00100000 \U0010fffd"],
    "unassigned": ["\u0378\u0379", "\u2fe0 \U0003fffd \U00030000\U000e0fff x", "\ud7ff\ue000"],
    "astral": [
        "\U00020000\U0002a6d6\U0002f800", "\U0002000b\u5bb6 \U00020bb7\u91ce\u5bb6", "\U0001d11e \U0001d160",
        "\U0001f100\U0001f110\U0001f130\U0001f170\U0001f190\U0001f201",
        "\U00010400\U00010428 \U00010900 \U0001ee00\U0001ee01 \U0001fbf0\U0001fbf9",
    ],
}

ALPHABET = sorted({c for texts in HARD.values() for text in texts for c in text})


def mixtures(count, seed):
    """Random concatenations of parts of the texts above and single characters of them."""
    rng = random.Random(seed)
    pool = [t for kind in HARD for t in HARD[kind] if t and len(t) < 60]
    out = []
    for _ in range(count):
        parts = []
        for _ in range(2 + int(rng.random() * 5)):
            text = pool[int(rng.random() * len(pool))]
            start = int(rng.random() * len(text))
            parts.append(text[start:start + 1 + int(rng.random() * 12)])
            parts.append(["", " ", "", ALPHABET[int(rng.random() * len(ALPHABET))]][int(rng.random() * 4)])
        out.append("".join(parts))
    return out


def texts():
    """All hard texts as (class, text), in a fixed order."""
    out = [(kind, text) for kind in HARD for text in HARD[kind]]
    return out + [("fuzz", text) for text in mixtures(10, seed=7)]
