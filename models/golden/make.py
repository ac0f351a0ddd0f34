"""Generates the golden files beside this script from `texts/` and `hard.py`.

usage: make.py ONNX

ONNX is the int8 export of universal-sentence-encoder-multilingual v3, which contains the weights and the SentencePiece
model. Output:

  sentences.jsonl   every text with its ids and tokens from sentencepiece 0.2.1
  embeddings.npy    the vectors of those ids, computed in float64, stored as float32
  mutated.jsonl     short random mutations of the texts with their ids
  spans.jsonl       for each line of sentences.jsonl, then of mutated.jsonl: the bytes of its text at which a token
                    starts, the byte at which the last one ends, and the text that its ids decode to
"""

import hashlib
import itertools
import json
import random
import sys
from pathlib import Path

import hard
import numpy as np
import onnx
import sentencepiece

HERE = Path(__file__).resolve().parent
ONNX_SHA256 = "b8b05b01f0861094f0475cb288ad1b303ae8aee2ebe96e650d210805d5ca70f7"
SENTENCEPIECE = "0.2.1"  # 0.2.3 resolves score ties differently
LANGUAGES = ["ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh-cn", "zh-tw"]
BOS, EOS = 1, 2
SHARDS = 17
MUTATED_LINES = 5000
MUTATED_SEED = 20


class Weights:
    """The tensors of an ONNX graph by name, dequantised to float64."""

    def __init__(self, graph):
        self.stored = {tensor.name: tensor for tensor in graph.initializer}

    def raw(self, name):
        return onnx.numpy_helper.to_array(self.stored[name])

    def __call__(self, name):
        if name in self.stored:
            return self.raw(name).astype(np.float64)
        scale, zero = (self.raw(name + suffix).astype(np.float64) for suffix in ("_scale", "_zero_point"))
        return (self.raw(name + "_quantized").astype(np.float64) - zero) * scale


def normalised(rows, gain, bias):
    """LayerNorm over the last axis."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-12) * gain + bias


def shifted(rows, by):
    """Row t of the result is row t + by, or zeros."""
    out = np.zeros_like(rows)
    n = len(rows)
    for t in range(max(0, -by), min(n, n - by)):
        out[t] = rows[t + by]
    return out


def relu(x):
    return np.maximum(x, 0.0)


class NgramBranch:
    """One of the three branches: a projection to 256, then two residual convolutions over windows of `width` tokens,
    which begin `left` tokens before the current one."""

    def __init__(self, weights, width, left):
        self.left = left
        at = f"StatefulPartitionedCall/EncoderDNN/CNN_layers/ngram_order_{width}/"
        self.project = weights(at + "input_size_projection/dense/kernel:0"), weights(at + "input_size_projection/dense/bias:0")
        self.norm = weights(at + "LayerNorm/gamma:0"), weights(at + "LayerNorm/beta:0")
        self.convolutions = []
        for name in (f"Ngram-{width}-Conv", f"Ngram-{width}-Conv_1"):
            # One (256, 256) matrix for each position in the window: the convolution is the sum of the products.
            taps = np.split(weights(f"{at}{name}/weights:0"), width)
            self.convolutions.append((taps, weights(f"{at}{name}/bias:0")))

    def __call__(self, embedded):
        kernel, bias = self.project
        hidden = normalised(embedded @ kernel + bias, *self.norm)
        for taps, bias in self.convolutions:
            window = sum(shifted(hidden, place - self.left) @ tap for place, tap in enumerate(taps))
            hidden = hidden + relu(window + bias)
        return hidden


class Encoder:
    """The forward pass in float64, one sentence at a time."""

    def __init__(self, graph):
        weights = Weights(graph)
        # Token i is row i // 17 of shard i % 17; stacking along a new second axis interleaves the shards.
        shards = [weights(f"Func/StatefulPartitionedCall/input/_{i + 1}:0") for i in range(SHARDS)]
        self.table = np.stack(shards, axis=1).reshape(-1, shards[0].shape[1])
        self.branches = [NgramBranch(weights, width, left) for width, left in ((2, 0), (3, 1), (5, 2))]
        top = "StatefulPartitionedCall/EncoderDNN/"
        self.norm = weights(top + "CNN_layers/LayerNorm/gamma:0"), weights(top + "CNN_layers/LayerNorm/beta:0")
        self.pool = weights(top + "CNN_layers/dense/kernel:0"), weights(top + "CNN_layers/dense/bias:0")
        self.hidden = [weights(f"{top}DNN/ResidualHidden_{i}/dense/kernel:0") for i in range(4)]
        self.skip = {i: weights(f"{top}DNN/ResidualHidden_{i}/AdjustDepth/projection/kernel:0") for i in (1, 3)}

    def __call__(self, ids):
        embedded = self.table[ids]
        features = np.hstack([embedded] + [branch(embedded) for branch in self.branches])
        kernel, bias = self.pool
        # (sum over t of (f[t] D + d)) / sqrt(n), with the sum before the product.
        pooled = (normalised(features, *self.norm).sum(axis=0) @ kernel + len(ids) * bias) / np.sqrt(len(ids))
        first = relu(pooled @ self.hidden[0])
        second = relu(pooled @ self.skip[1] + first @ self.hidden[1])
        third = relu(second @ self.hidden[2])
        last = np.tanh(second @ self.skip[3] + third @ self.hidden[3])
        return last / np.sqrt(max(last @ last, 1e-12))


def load(path):
    """Returns the encoder and the SentencePiece processor of an ONNX file."""
    graph = onnx.load(path).graph
    (model,) = (a.s for node in graph.node if node.op_type == "SentencepieceTokenizer" for a in node.attribute if a.name == "model")
    return Encoder(graph), sentencepiece.SentencePieceProcessor(model_proto=model)


def source_texts():
    """Yields all (kind, text): the sentences of the languages, then the hard texts."""
    for language in LANGUAGES:
        lines = (HERE / "texts" / f"{language}.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        yield from ((language, line) for line in lines)
    yield from (("hard:" + kind, text) for kind, text in hard.texts())


def mutations(texts, count, seed):
    """Yields distinct short mutations. Uses only `random()`, whose sequence for a seed is the same in all Python releases."""
    rng = random.Random(seed)

    def below(n):
        return int(rng.random() * n)

    def pick(items):
        return items[below(len(items))]

    def piece(longest):
        text = pick(texts)
        start = below(max(1, len(text) - longest // 2))
        return text[start : start + 1 + below(longest)]

    def character():
        draw = rng.random()
        if draw < 0.5:
            return pick(hard.ALPHABET)
        if draw < 0.6:
            return pick(hard.USER_DEFINED + ["<s>", "</s>", "<unk>"])
        code = below(0x30000 if draw < 0.7 else 0x10000)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)

    def mutate(text):
        at, end = below(len(text) + 1), below(len(text) + 1)
        kind = below(8)
        if kind == 0:
            return text[:at] + character() + text[at:]
        if kind == 1:
            return text[:at] + text[at + 1 :]
        if kind == 2:
            return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
        if kind == 3:
            return text[:at] + text[at : at + 1] * (2 + below(6) ** 2) + text[at + 1 :]
        if kind == 4:
            return text[:at] + piece(16) + text[end:]
        if kind == 5:
            return text[:at] + pick(hard.BLANKS + " " * len(hard.BLANKS)) * (1 + below(3)) + text[at:]
        if kind == 6:
            return text[:at] + character() + text[at + 1 :]
        return "".join(c + " " if rng.random() < 0.3 else c for c in text)

    seen = set(texts)
    while count:
        text = piece(28)
        for _ in range(1 + below(4)):
            text = mutate(text)
        if text not in seen and len(text) <= 80:
            seen.add(text)
            count -= 1
            yield text


def spans(tokenizer, text):
    """The record of spans.jsonl. A span of SentencePiece ends where the next one starts."""
    pieces = tokenizer.encode(text, out_type="immutable_proto").pieces
    assert all(piece.end == after.begin for piece, after in itertools.pairwise(pieces)), text
    characters = [piece.begin for piece in pieces] + [piece.end for piece in pieces[-1:]]
    bounds = [len(text[:at].encode()) for at in characters]
    return {"bounds": bounds, "decoded": tokenizer.decode([piece.id for piece in pieces])}


def write_lines(name, records):
    # ASCII escapes, because editors would change many of the texts.
    with open(HERE / name, "w", encoding="ascii", newline="\n") as out:
        out.writelines(json.dumps(record, separators=(",", ":")) + "\n" for record in records)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sentencepiece.__version__ != SENTENCEPIECE:
        sys.exit(f"needs sentencepiece {SENTENCEPIECE}, found {sentencepiece.__version__}")
    if hashlib.sha256(Path(sys.argv[1]).read_bytes()).hexdigest() != ONNX_SHA256:
        sys.exit(f"not the ONNX file these fixtures are made from (sha256 {ONNX_SHA256})")
    encoder, tokenizer = load(sys.argv[1])

    def ids(text):
        return [BOS, *tokenizer.encode(text), EOS]

    sentences = [
        {"kind": kind, "text": text, "ids": ids(text), "tokens": [tokenizer.id_to_piece(i) for i in ids(text)[1:-1]]}
        for kind, text in source_texts()
    ]
    write_lines("sentences.jsonl", sentences)
    np.save(HERE / "embeddings.npy", np.stack([encoder(s["ids"]) for s in sentences]).astype(np.float32))
    texts = [s["text"] for s in sentences]
    mutated = list(mutations(texts, MUTATED_LINES, MUTATED_SEED))
    write_lines("mutated.jsonl", ({"text": text, "ids": ids(text)} for text in mutated))
    write_lines("spans.jsonl", (spans(tokenizer, text) for text in texts + mutated))


if __name__ == "__main__":
    main()
