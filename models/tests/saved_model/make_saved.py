#!/usr/bin/env python3
"""Writes a SavedModel with TensorFlow that has the variables, the parts and the tokenizer of the original.

usage: make_saved.py FOLDER ONNX

ONNX is the int8 export of universal-sentence-encoder-multilingual 3, whose weights are written as float32. Its forward
pass computes nothing useful: only the variables and the node of the tokenizer count. Requires the packages in README.md.
"""

import sys

import numpy as np
import onnx
import tensorflow as tf
import tensorflow_text
from onnx import numpy_helper
from tensorflow.python.trackable.autotrackable import AutoTrackable

PREFIX = "StatefulPartitionedCall/EncoderDNN/"
PARTS = 17
INPUTS = [tf.TensorSpec([None], tf.string, name="inputs")]


class Export:
    """An ONNX file with quantised tensors."""

    def __init__(self, path):
        self.model = onnx.load(path)
        self.tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def float32(self, name):
        """The values of a tensor as float32."""
        if name + "_quantized" not in self.tensors:
            return self.tensors[name].astype(np.float32)
        values = self.tensors[name + "_quantized"].astype(np.int32) - np.int32(self.tensors[name + "_zero_point"])
        return (values.astype(np.float32) * np.float32(self.tensors[name + "_scale"])).astype(np.float32)

    def names(self):
        """The tensors of the encoder."""
        parameters = ("_scale", "_zero_point")
        names = {name.removesuffix("_quantized") for name in self.tensors if name.startswith(PREFIX) and not name.endswith(parameters)}
        ends = ("kernel:0", "bias:0", "weights:0", "gamma:0", "beta:0")
        return sorted(name for name in names if name.split("/")[-1] in ends)

    def tokenizer(self):
        """The SentencePiece model."""
        nodes = [node for node in self.model.graph.node if node.op_type == "SentencepieceTokenizer"]
        return next(attribute.s for node in nodes for attribute in node.attribute if attribute.name == "model")


def parts(values):
    """The parts along the first axis, as a partitioner of the original divides it."""
    return [values] if values.shape[0] < PARTS else np.array_split(values, PARTS)


def variables_of(export):
    variables = [
        tf.Variable(export.float32(f"Func/StatefulPartitionedCall/input/_{shard + 1}:0"), name=f"Embeddings/sharded_{shard}")
        for shard in range(PARTS)
    ]
    for name in export.names():
        base = "EncoderDNN/" + name[len(PREFIX) : -2]
        variables += [tf.Variable(part, name=f"{base}/part_{index}") for index, part in enumerate(parts(export.float32(name)))]
    return variables


class Model(tf.Module):
    def __init__(self, variables, tokenizer):
        super().__init__()
        self.variables_ = variables
        self.tokenizer = tokenizer

    @tf.function(input_signature=INPUTS)
    def __call__(self, inputs):
        ids = self.tokenizer.tokenize(inputs).to_tensor(0)
        total = tf.zeros([], tf.float32)
        for variable in self.variables_:
            total = total + tf.reduce_sum(variable[:1])
        return {"outputs": tf.cast(tf.reduce_sum(ids, axis=1, keepdims=True), tf.float32) + total}


def main():
    folder, path = sys.argv[1:]
    export = Export(path)
    variables = variables_of(export)
    tokenizer = tensorflow_text.SentencepieceTokenizer(model=export.tokenizer(), add_bos=False, add_eos=False)
    model = Model(variables, tokenizer)
    root = AutoTrackable()
    root.variables = variables
    root.trainable_variables = variables
    root.regularization_losses = []
    root.__call__ = model.__call__
    root.tok = tokenizer
    tf.saved_model.save(root, folder, signatures=model.__call__.get_concrete_function())


if __name__ == "__main__":
    main()
