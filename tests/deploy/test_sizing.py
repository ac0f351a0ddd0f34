"""The tables of docs/operations/sizing.md equal the formula."""

import re

import pytest
from cluster import CHECKOUT

TEXT = (CHECKOUT / "docs/operations/sizing.md").read_text()
RATES = {"f32": 32_000, "bf16": 131_000}
JSON_BYTES, GRPC_BYTES = 6_280, 2_056


def formula():
    names = {}
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], names)
    return names["embedders"]


@pytest.mark.parametrize("millions", [10, 100, 1_000])
def test_rows_of_the_table_equal_the_formula(millions):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {millions:,} million |")]
    peak, f32, bf16, memory, _, _, network = [cell.strip() for cell in row.split("|")[2:-1]]
    sentences = millions * 1_000_000
    for cell, precision in ((f32, "f32"), (bf16, "bf16")):
        assert f"{RATES[precision]:,}" in TEXT
        cores, pods = formula()(sentences, rate=RATES[precision])
        assert cell == f"{cores:.1f}, {pods}"
    _, pods = formula()(sentences)
    assert memory == f"{pods * 0.311:.1f} GB"
    rate = sentences * 3 / 86_400
    assert float(peak.removesuffix("/s").replace(",", "")) == pytest.approx(rate, rel=0.01)
    megabits = [float(number.replace(",", "")) for number in network.removesuffix(" Mbit/s").split(" / ")]
    assert megabits == pytest.approx([rate * JSON_BYTES * 8e-6, rate * GRPC_BYTES * 8e-6], abs=0.6)


def test_number_of_larger_pods_equals_the_formula():
    assert "`embedders(1e9, cores=8)`: 8" in TEXT and formula()(1e9, cores=8)[1] == 8
