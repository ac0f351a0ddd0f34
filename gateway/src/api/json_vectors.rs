//! Vectors as JSON arrays.

use muse_proto::v1::Embedding;
use serde::{Serialize, Serializer};

/// A vector, each component as the shortest decimal number that parses to the same `f32`. It is serialized from the bytes that came
/// from the embedder.
pub(crate) struct Numbers(pub(crate) Embedding);

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.components())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_shortest_exact_form() {
        let components = [0.1, -0.003_906_25, 1.0, 0.094_219_22, f32::MIN_POSITIVE, 1.0 / 3.0];
        let written = serde_json::to_string(&Numbers(Embedding::new(&components, 0))).unwrap();
        assert_eq!(written, "[0.1,-0.00390625,1.0,0.09421922,1.1754944e-38,0.33333334]");
        assert_eq!(serde_json::from_str::<Vec<f32>>(&written).unwrap(), components);
    }
}
