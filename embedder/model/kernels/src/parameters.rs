//! The named parameters of the encoder: the contract between the TorchScript module, the converter
//! that writes it, and the kernels that pack its parameters.

/// Components of an embedding and of a vector.
pub const DIMENSION: i64 = 512;
/// Width of a branch.
pub const HIDDEN: i64 = 256;
/// Width of the features of a token: the embedding and the branches.
pub const FEATURES: i64 = DIMENSION + 3 * HIDDEN;
/// Width of the narrow hidden layers.
pub const BOTTLENECK: i64 = 320;

/// The embeddings in token order, (vocabulary, 512): uint8, or floating point without [`SCALE`] and
/// [`ZERO_POINT`].
pub const TABLE: &str = "embedding.weight";
/// float32 (shards, 1). The embedding of token `i` is `(row - zero_point[s]) * scale[s]`, where `s`
/// is `i` modulo the number of shards.
pub const SCALE: &str = "embedding.scale";
/// float32 (shards, 1).
pub const ZERO_POINT: &str = "embedding.zero_point";

/// The other parameters with their shapes, in the order in which the kernels use them. A matrix is
/// (outputs, inputs).
///
/// - `cnn.projection`: the projections of an embedding into the three branches, concatenated.
/// - `cnn.K`: the branch of the n-grams of K tokens: a LayerNorm, and two layers whose inputs are
///   the concatenated rows of K neighbouring tokens.
/// - `norm`: the LayerNorm of the features, which are the embedding and the outputs of the branches.
/// - `dense`, `dnn`: the layers of a sentence. The output of `dense` is y, those of `dnn` are s0 to
///   s3; the inputs of `dnn` are y, [s0, y], s1 and [s1, s2].
pub const PARAMETERS: [(&str, &[i64]); 28] = [
    ("cnn.projection.weight", &[3 * HIDDEN, DIMENSION]),
    ("cnn.projection.bias", &[3 * HIDDEN]),
    ("cnn.2.norm.weight", &[HIDDEN]),
    ("cnn.2.norm.bias", &[HIDDEN]),
    ("cnn.2.conv.0.weight", &[HIDDEN, 2 * HIDDEN]),
    ("cnn.2.conv.0.bias", &[HIDDEN]),
    ("cnn.2.conv.1.weight", &[HIDDEN, 2 * HIDDEN]),
    ("cnn.2.conv.1.bias", &[HIDDEN]),
    ("cnn.3.norm.weight", &[HIDDEN]),
    ("cnn.3.norm.bias", &[HIDDEN]),
    ("cnn.3.conv.0.weight", &[HIDDEN, 3 * HIDDEN]),
    ("cnn.3.conv.0.bias", &[HIDDEN]),
    ("cnn.3.conv.1.weight", &[HIDDEN, 3 * HIDDEN]),
    ("cnn.3.conv.1.bias", &[HIDDEN]),
    ("cnn.5.norm.weight", &[HIDDEN]),
    ("cnn.5.norm.bias", &[HIDDEN]),
    ("cnn.5.conv.0.weight", &[HIDDEN, 5 * HIDDEN]),
    ("cnn.5.conv.0.bias", &[HIDDEN]),
    ("cnn.5.conv.1.weight", &[HIDDEN, 5 * HIDDEN]),
    ("cnn.5.conv.1.bias", &[HIDDEN]),
    ("norm.weight", &[FEATURES]),
    ("norm.bias", &[FEATURES]),
    ("dense.weight", &[DIMENSION, FEATURES]),
    ("dense.bias", &[DIMENSION]),
    ("dnn.0.weight", &[BOTTLENECK, DIMENSION]),
    ("dnn.1.weight", &[BOTTLENECK, BOTTLENECK + DIMENSION]),
    ("dnn.2.weight", &[DIMENSION, BOTTLENECK]),
    ("dnn.3.weight", &[DIMENSION, BOTTLENECK + DIMENSION]),
];
