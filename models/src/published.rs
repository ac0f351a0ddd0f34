//! A published vector of the original model.
//!
//! The demo of universal-sentence-encoder-multilingual in OpenVINO Model Server shows the response
//! of TensorFlow Serving with the float32 SavedModel: a sentence, and the first 20 of the 512
//! components.

/// The sentence.
pub const SENTENCE: &str = "I enjoy taking long walks along the beach with my dog.";

/// The first components of its vector.
pub const COMPONENTS: [f32; 20] = [
    -0.00552387,
    0.00599531,
    -0.0148055,
    0.01098951,
    -0.09355522,
    -0.08445048,
    -0.02802679,
    -0.05219323,
    -0.06759984,
    0.03127313,
    -0.03223493,
    -0.01282088,
    0.06131843,
    0.02626882,
    -0.00983502,
    0.00298053,
    0.00141208,
    0.03229369,
    0.06957125,
    0.01543701,
];
