//! Walks the fields of protobuf messages in a file, without the values in memory.
//!
//! The files of models contain hundreds of megabytes; the values that a conversion needs at a time
//! have few of them.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Bytes that are read at a time.
const WINDOW: usize = 1 << 16;
/// The longest string that is read: names are shorter.
const STRING_BYTES: u64 = 1 << 12;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProtoError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a protobuf message, or the file ends within it.
    #[error("it is not a complete protobuf message")]
    Malformed,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its number in the schema.
    pub(crate) number: u64,
    /// Its value.
    pub(crate) value: Value,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// An integer.
    Varint(u64),
    /// The position of bytes, a string or a message.
    Bytes(Range<u64>),
    /// A number of four or eight bytes.
    Fixed,
}

/// Reads the fields of messages in a file.
#[derive(Debug)]
pub(crate) struct ProtoFile<'file> {
    file: &'file File,
    bytes: u64,
    window: Vec<u8>,
    start: u64,
}

impl ProtoFile<'_> {
    /// A reader at no position.
    pub(crate) fn new(file: &File) -> io::Result<ProtoFile<'_>> {
        Ok(ProtoFile { file, bytes: file.metadata()?.len(), window: Vec::new(), start: 0 })
    }

    /// The position of the message that is the whole file.
    pub(crate) fn message(&self) -> Range<u64> {
        0..self.bytes
    }

    /// The next field of the message at `rest`, which then is the position of the others; `None` at
    /// the end.
    pub(crate) fn next(&mut self, rest: &mut Range<u64>) -> Result<Option<Field>, ProtoError> {
        if rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint(rest)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(rest)?),
            1 => {
                take(rest, 8)?;
                Value::Fixed
            }
            2 => {
                let length = self.varint(rest)?;
                Value::Bytes(take(rest, length)?)
            }
            5 => {
                take(rest, 4)?;
                Value::Fixed
            }
            // Groups, which none of these schemas has.
            _ => return Err(ProtoError::Malformed),
        };
        Ok(Some(Field { number: tag >> 3, value }))
    }

    /// Calls `visit` with the position of each value of bytes at a path of field numbers.
    pub(crate) fn visit<F>(
        &mut self,
        message: Range<u64>,
        path: &[u64],
        visit: &mut F,
    ) -> Result<(), ProtoError>
    where
        F: FnMut(&mut Self, Range<u64>) -> Result<(), ProtoError>,
    {
        let Some((first, path)) = path.split_first() else { return visit(self, message) };
        let mut rest = message;
        while let Some(field) = self.next(&mut rest)? {
            if let Field { number, value: Value::Bytes(value) } = field
                && number == *first
            {
                self.visit(value, path, visit)?;
            }
        }
        Ok(())
    }

    /// The bytes at a position within the file.
    pub(crate) fn read(&self, position: &Range<u64>) -> Result<Vec<u8>, ProtoError> {
        // A position that `next` returned is within the file, so the size is at most the file's.
        let length = usize::try_from(position.end - position.start).map_err(|_| ProtoError::Malformed)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, position.start)?;
        Ok(bytes)
    }

    /// The string at a position.
    pub(crate) fn string(&self, position: &Range<u64>) -> Result<String, ProtoError> {
        if position.end - position.start > STRING_BYTES {
            return Err(ProtoError::Malformed);
        }
        String::from_utf8(self.read(position)?).map_err(|_| ProtoError::Malformed)
    }

    /// The first value of bytes with a field number in a message.
    pub(crate) fn find(
        &mut self,
        message: &Range<u64>,
        number: u64,
    ) -> Result<Option<Range<u64>>, ProtoError> {
        let mut rest = message.clone();
        while let Some(field) = self.next(&mut rest)? {
            if let Field { number: found, value: Value::Bytes(value) } = field
                && found == number
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn varint(&mut self, rest: &mut Range<u64>) -> Result<u64, ProtoError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let position = take(rest, 1)?.start;
            let byte = self.byte(position)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtoError::Malformed)
    }

    fn byte(&mut self, position: u64) -> Result<u8, ProtoError> {
        let within = position.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        if let Some(byte) = within.and_then(|offset| self.window.get(offset)) {
            return Ok(*byte);
        }
        self.window.resize(WINDOW, 0);
        let count = self.file.read_at(&mut self.window, position)?;
        self.window.truncate(count);
        self.start = position;
        self.window.first().copied().ok_or(ProtoError::Malformed)
    }
}

/// Takes bytes off the front of a position.
fn take(rest: &mut Range<u64>, length: u64) -> Result<Range<u64>, ProtoError> {
    if length > rest.end - rest.start {
        return Err(ProtoError::Malformed);
    }
    let taken = rest.start..rest.start + length;
    rest.start = taken.end;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn fields(bytes: &[u8]) -> Result<Vec<Field>, ProtoError> {
        let file = file(bytes);
        let mut proto = ProtoFile::new(&file).unwrap();
        let mut rest = proto.message();
        let mut fields = Vec::new();
        while let Some(field) = proto.next(&mut rest)? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn all_wire_types_are_read() {
        // Field 1: varint 300; 2: the bytes "ab"; 3: four bytes; 4: eight bytes.
        let bytes = b"\x08\xac\x02\x12\x02ab\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0";
        let values = [Value::Varint(300), Value::Bytes(5..7), Value::Fixed, Value::Fixed];
        let expected: Vec<Field> = (1..).zip(values).map(|(number, value)| Field { number, value }).collect();
        assert_eq!(fields(bytes).unwrap(), expected);
        for length in [1, 2, 4, 5, 6, 8, 13, 20] {
            assert!(matches!(fields(&bytes[..length]), Err(ProtoError::Malformed)), "{length}");
        }
        // A group, a length beyond the file, and a varint without an end.
        for malformed in [&b"\x0b"[..], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &[0xff; 11]] {
            assert!(matches!(fields(malformed), Err(ProtoError::Malformed)), "{malformed:?}");
        }
    }

    #[test]
    fn value_outside_its_message_is_rejected() {
        // A message of two bytes, whose field has a length of five, within a longer file.
        let file = file(b"\x0a\x02\x0a\x05abcdef");
        let mut proto = ProtoFile::new(&file).unwrap();
        let whole = proto.message();
        let found = proto.visit(whole, &[1, 1], &mut |_, _| Ok(()));
        assert!(matches!(found, Err(ProtoError::Malformed)));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes);
        }
    }
}
