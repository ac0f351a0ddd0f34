//! `muse.v1.Embedding`, hand-written, because its numbers are most of the data of the services.

use bytes::{BufMut, Bytes, BytesMut};

/// A vector, and the number of tokens of its sentence.
///
/// A packed `repeated float` and a `bytes` field are the same on the wire. As bytes, the numbers are a slice of the received or
/// produced buffer, not a `Vec` of their own. (Unpacked numbers, which proto3 encoders do not write by default, are an error.)
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Embedding {
    /// The components: little-endian IEEE 754 single precision, one after the other.
    #[prost(bytes = "bytes", tag = "1")]
    pub packed: Bytes,
    /// Tokens of the sentence, `<s>` and `</s>` not counted.
    #[prost(uint32, tag = "2")]
    pub token_count: u32,
    /// The components in another format than single precision; then `packed` is empty.
    #[prost(bytes = "bytes", tag = "3")]
    pub encoded: Bytes,
}

impl Embedding {
    /// Packs the components of a vector.
    #[must_use]
    pub fn new(components: &[f32], token_count: u32) -> Self {
        let mut packed = BytesMut::with_capacity(size_of_val(components));
        for &component in components {
            packed.put_f32_le(component);
        }
        Self { packed: packed.freeze(), token_count, encoded: Bytes::new() }
    }

    /// The number of components in `packed`.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.packed.len() / size_of::<f32>()
    }

    /// The components in `packed`.
    pub fn components(&self) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
        let (numbers, _) = self.packed.as_chunks();
        numbers.iter().map(|number| f32::from_le_bytes(*number))
    }

    /// The components in `packed`, in a `Vec` of their own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        self.components().collect()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The message as generated from the `.proto` file.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Plain {
        #[prost(float, repeated, tag = "1")]
        values: Vec<f32>,
        #[prost(uint32, tag = "2")]
        token_count: u32,
        #[prost(bytes = "vec", tag = "3")]
        encoded: Vec<u8>,
    }

    #[test]
    fn embedding_encodes_like_the_generated_message() {
        for values in [vec![], vec![1.5, -0.0, f32::MIN_POSITIVE, 1e30], vec![0.25; 512]] {
            let plain = Plain { values: values.clone(), token_count: 7, encoded: Vec::new() };
            let packed = Embedding::new(&values, 7);
            assert_eq!(packed.encode_to_vec(), plain.encode_to_vec());
            assert_eq!(Embedding::decode(&*plain.encode_to_vec()).unwrap(), packed);
            assert_eq!((packed.dimension(), packed.to_vec()), (values.len(), values));
        }
        let plain = Plain { values: Vec::new(), token_count: 7, encoded: vec![0x00, 0x3c] };
        let encoded =
            Embedding { encoded: Bytes::from_static(&[0x00, 0x3c]), token_count: 7, ..Embedding::default() };
        assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
    }
}
