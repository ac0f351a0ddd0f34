//! Scans encoded messages without decoding them.
//!
//! A decoder turns a field of two bytes into a value of 24 bytes and more, so what a message contains is counted here
//! before memory is allocated for it. A scan allocates nothing and takes about a nanosecond per byte.

use std::fmt;

/// Nested groups that a scan follows; prost's decoder has the same limit.
const MAX_DEPTH: usize = 100;

/// The bytes are not an encoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are no encoded protobuf message")
    }
}

impl std::error::Error for Malformed {}

/// The value of a field, by its wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// Eight bytes.
    Fixed64,
    /// Strings, bytes, messages and packed numbers.
    LengthDelimited(&'a [u8]),
    /// Four bytes.
    Fixed32,
    /// A group with all that is inside it.
    Group,
}

/// Returns the top-level fields of an encoded message in order: their numbers and values. The iterator ends after an error.
#[must_use]
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Counts the length-delimited occurrences of a top-level field: the elements of a repeated field of strings or messages.
///
/// # Errors
///
/// If the bytes are no encoded message.
pub fn count_field(message: &[u8], field: u32) -> Result<usize, Malformed> {
    fields(message).try_fold(0, |count, next| {
        let (number, value) = next?;
        Ok(count + usize::from(number == field && matches!(value, Value::LengthDelimited(_))))
    })
}

/// Counts the elements of a repeated field of integers (not of fixed width), packed or not.
///
/// # Errors
///
/// If the bytes are no encoded message.
pub fn count_varints(message: &[u8], field: u32) -> Result<usize, Malformed> {
    fields(message).try_fold(0, |count, next| {
        let more = match next? {
            (number, Value::Varint(_)) if number == field => 1,
            // The last byte of a varint has its high bit clear.
            (number, Value::LengthDelimited(packed)) if number == field => {
                packed.iter().filter(|&&byte| byte < 0x80).count()
            }
            _ => 0,
        };
        Ok(count + more)
    })
}

/// The iterator of [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.field();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

impl<'a> Fields<'a> {
    #[inline]
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            _ => self.value(wire_type)?,
        };
        Ok((number, value))
    }

    /// Skips the rest of a group after its start.
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = [0; MAX_DEPTH];
        open[0] = number;
        let mut depth = 1;
        while depth > 0 {
            match self.key()? {
                (number, 3) => {
                    *open.get_mut(depth).ok_or(Malformed)? = number;
                    depth += 1;
                }
                (number, 4) if number == open[depth - 1] => depth -= 1,
                (_, wire_type) => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (number, wire_type) = (key >> 3, (key & 7) as u8);
        if number == 0 { Err(Malformed) } else { Ok((number, wire_type)) }
    }

    #[inline]
    fn value(&mut self, wire_type: u8) -> Result<Value<'a>, Malformed> {
        match wire_type {
            0 => Ok(Value::Varint(self.varint()?)),
            1 => self.take(8).map(|_| Value::Fixed64),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                self.take(length).map(Value::LengthDelimited)
            }
            5 => self.take(4).map(|_| Value::Fixed32),
            _ => Err(Malformed),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                // Only one bit of the tenth byte belongs to the number.
                return if index == 9 && byte > 1 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message;

    use super::*;
    use crate::v1::{EmbedRequest, TokenIds};

    /// A message without fields: prost checks the structure of any message, and stores nothing.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Unknown {}

    /// The same field as `TokenIds.ids`, written without packing.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Unpacked {
        #[prost(uint32, repeated, packed = "false", tag = "1")]
        ids: Vec<u32>,
    }

    fn scan(message: &[u8]) -> Result<usize, Malformed> {
        fields(message).try_fold(0, |count, next| next.map(|_| count + 1))
    }

    /// Fields of every wire type, also wrong ones, with small numbers so that groups find their ends.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (1_u8..4, 0_u8..8).prop_map(|(number, wire_type)| vec![number << 3 | wire_type]),
            any::<u8>().prop_map(|byte| vec![byte]),
            (1_u8..4, vec(any::<u8>(), 0..6))
                .prop_map(|(number, bytes)| { [&[number << 3 | 2, bytes.len() as u8], &bytes[..]].concat() }),
            (1_u8..4, any::<u64>()).prop_map(|(number, value)| {
                let mut bytes = vec![number << 3];
                prost::encoding::encode_varint(value, &mut bytes);
                bytes
            }),
        ];
        vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn scan_accepts_what_prost_accepts(message in message()) {
            prop_assert_eq!(scan(&message).is_ok(), Unknown::decode(&message[..]).is_ok());
        }

        #[test]
        fn counts_are_those_of_the_decoded_message(
            sentences in vec(".{0,20}", 0..20),
            token_ids in vec(vec(any::<u32>(), 0..20), 0..20),
            dimensions in any::<u32>(),
        ) {
            let token_ids: Vec<_> = token_ids.into_iter().map(|ids| TokenIds { ids }).collect();
            let request = EmbedRequest { sentences, token_ids, dimensions, ..EmbedRequest::default() };
            let encoded = request.encode_to_vec();
            prop_assert_eq!(count_field(&encoded, 1), Ok(request.sentences.len()));
            prop_assert_eq!(count_field(&encoded, 2), Ok(request.token_ids.len()));
            for given in &request.token_ids {
                let unpacked = Unpacked { ids: given.ids.clone() }.encode_to_vec();
                let both = [given.encode_to_vec(), unpacked].concat();
                prop_assert_eq!(count_varints(&both, 1), Ok(2 * given.ids.len()));
                prop_assert_eq!(TokenIds::decode(&both[..]).map(|both| both.ids.len()), Ok(2 * given.ids.len()));
            }
        }
    }

    #[test]
    fn group_depth_limit_is_that_of_prost() {
        for depth in [1, 2, 99, 100, 101, 150] {
            let nested = [vec![0x0b; depth], vec![0x0c; depth]].concat();
            assert_eq!(scan(&nested).is_ok(), Unknown::decode(&nested[..]).is_ok(), "{depth}");
        }
        // Half of a megabyte of starts neither recurses nor allocates.
        assert_eq!(scan(&vec![0x0b; 1 << 19]), Err(Malformed));
    }
}
