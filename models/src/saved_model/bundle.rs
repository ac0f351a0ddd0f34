//! Reads a TensorBundle: the values of variables in data files, and an index of them.
//!
//! The format is that of `tensor_bundle.cc` and `tensor_bundle.proto` of TensorFlow.

use std::{collections::BTreeMap, fs::File, io, ops::Range, os::unix::fs::FileExt};

use prost::Message;

use super::{
    SavedModelError, checksum,
    files::{INDEX_FILE, data_file_name},
    table,
};

/// The version of the format that this code reads.
const VERSION: i32 = 1;
/// `DT_FLOAT` and `DT_STRING` of `types.proto`.
const FLOAT: i32 = 1;
const STRING: i32 = 7;
/// Bytes that are read at a time, a multiple of four.
const CHUNK: usize = 1 << 20;

#[derive(Clone, PartialEq, Message)]
struct BundleHeaderProto {
    #[prost(int32, tag = "1")]
    num_shards: i32,
    /// 0 is little-endian, 1 is big-endian.
    #[prost(int32, tag = "2")]
    endianness: i32,
    #[prost(message, optional, tag = "3")]
    version: Option<VersionDef>,
}

#[derive(Clone, PartialEq, Message)]
struct VersionDef {
    #[prost(int32, tag = "2")]
    min_consumer: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BundleEntryProto {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
    #[prost(int32, tag = "3")]
    shard_id: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
    /// Masked.
    #[prost(fixed32, tag = "6")]
    crc32c: u32,
    /// Not empty if the values are below other keys.
    #[prost(message, repeated, tag = "7")]
    slices: Vec<TensorSliceProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct TensorSliceProto {}

/// An index, and the data files.
#[derive(Debug)]
pub(super) struct Bundle {
    entries: BTreeMap<String, BundleEntryProto>,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    name: String,
    file: File,
    bytes: u64,
}

impl Bundle {
    /// Reads the index. `data` contains the data files by name.
    pub(super) fn open(index: &[u8], data: &mut BTreeMap<String, File>) -> Result<Bundle, SavedModelError> {
        let damaged = |reason: &str| SavedModelError::damaged(INDEX_FILE, reason);
        let mut entries = table::read(index).map_err(|error| damaged(&error.to_string()))?.into_iter();
        // The key of the header is empty, hence it is the first.
        let header = entries.next().filter(|(key, _)| key.is_empty());
        let (_, header) = header.ok_or_else(|| damaged("it has no header"))?;
        let header =
            BundleHeaderProto::decode(header.as_slice()).map_err(|_| damaged("its header is malformed"))?;
        if header.endianness != 0 {
            return Err(SavedModelError::Unsupported("has big-endian numbers"));
        }
        if header.version.is_some_and(|version| version.min_consumer > VERSION) {
            return Err(SavedModelError::Unsupported("has a later version of the format of variables"));
        }
        let mut shards = Vec::new();
        for shard in 0..header.num_shards {
            let name = data_file_name(shard, header.num_shards);
            let file = data.remove(&name).ok_or_else(|| SavedModelError::Missing { file: name.clone() })?;
            let bytes = file.metadata().map_err(|error| cannot_read(&name, error))?.len();
            shards.push(Shard { name, file, bytes });
        }
        let entries = entries.map(|(key, value)| {
            let key = String::from_utf8(key).map_err(|_| damaged("it has a malformed key"))?;
            let entry = BundleEntryProto::decode(value.as_slice());
            Ok((key, entry.map_err(|_| damaged("it has a malformed entry"))?))
        });
        Ok(Bundle { entries: entries.collect::<Result<_, SavedModelError>>()?, shards })
    }

    /// The keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor; `None` if there is no such tensor.
    pub(super) fn shape(&self, key: &str) -> Option<Vec<i64>> {
        let entry = self.entries.get(key)?;
        Some(entry.shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size).collect())
    }

    /// Reads the values of a float32 tensor, and verifies their checksum. The size of `values` must
    /// be that of the tensor.
    pub(super) fn read_floats(&self, key: &str, values: &mut [f32]) -> Result<(), SavedModelError> {
        let (entry, shard, position) = self.position(key)?;
        let damaged = |reason: &str| SavedModelError::damaged(INDEX_FILE, format!("{key} {reason}"));
        if entry.dtype != FLOAT {
            return Err(damaged("is not float32"));
        }
        if (position.end - position.start) != values.len() as u64 * 4 {
            return Err(damaged("has another size than its shape"));
        }
        let mut buffer = vec![0; CHUNK.min(values.len() * 4)];
        let (mut at, mut crc) = (position.start, 0);
        for values in values.chunks_mut(CHUNK / 4) {
            let bytes = &mut buffer[..values.len() * 4];
            shard.read(bytes, at)?;
            at += bytes.len() as u64;
            crc = crc32c::crc32c_append(crc, bytes);
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        shard.check(key, crc, entry.crc32c)
    }

    /// The position of the bytes of a tensor that is one string, after a verification of its
    /// checksums.
    pub(super) fn string(&self, key: &str) -> Result<(&File, Range<u64>), SavedModelError> {
        let (entry, shard, position) = self.position(key)?;
        let malformed = || SavedModelError::damaged(&shard.name, format!("the string {key} is malformed"));
        if entry.dtype != STRING || self.shape(key).is_some_and(|shape| shape.iter().any(|size| *size != 1)) {
            return Err(SavedModelError::damaged(INDEX_FILE, format!("{key} is not a string")));
        }
        // The length as a varint, its checksum, and the bytes.
        let mut head = vec![0; usize::try_from(position.end - position.start).unwrap_or(14).min(14)];
        shard.read(&mut head, position.start)?;
        let mut rest = head.as_slice();
        let length = table::take_varint(&mut rest).ok_or_else(malformed)?;
        let (masked, _) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let start = position.start + (head.len() - rest.len()) as u64 + 4;
        // The checksum is of the length with four bytes, or with eight if that is too short.
        let crc = u32::try_from(length).map_or_else(
            |_| crc32c::crc32c(&length.to_le_bytes()),
            |length| crc32c::crc32c(&length.to_le_bytes()),
        );
        shard.check(key, crc, u32::from_le_bytes(*masked))?;
        if position.end - start.min(position.end) != length {
            return Err(malformed());
        }
        let mut crc = crc32c::crc32c_append(crc, masked);
        let mut buffer = vec![0; CHUNK];
        let mut at = start;
        while at < position.end {
            let count = usize::try_from(position.end - at).unwrap_or(CHUNK).min(CHUNK);
            shard.read(&mut buffer[..count], at)?;
            crc = crc32c::crc32c_append(crc, &buffer[..count]);
            at += count as u64;
        }
        shard.check(key, crc, entry.crc32c)?;
        Ok((&shard.file, start..position.end))
    }

    /// An entry, its data file, and the position of its bytes there.
    fn position(&self, key: &str) -> Result<(&BundleEntryProto, &Shard, Range<u64>), SavedModelError> {
        let damaged = |reason: &str| SavedModelError::damaged(INDEX_FILE, format!("{key} {reason}"));
        let entry = self.entries.get(key).ok_or_else(|| damaged("has no entry"))?;
        if !entry.slices.is_empty() {
            return Err(SavedModelError::Unsupported("has variables in slices"));
        }
        let shard = usize::try_from(entry.shard_id).ok().and_then(|shard| self.shards.get(shard));
        let shard = shard.ok_or_else(|| damaged("is in a data file that does not exist"))?;
        let start = u64::try_from(entry.offset).ok();
        let end = start.and_then(|start| start.checked_add(u64::try_from(entry.size).ok()?));
        let (Some(start), Some(end)) = (start, end) else { return Err(damaged("has a malformed position")) };
        if end > shard.bytes {
            let reason = format!("it has {} bytes, and {key} ends at byte {end}", shard.bytes);
            return Err(SavedModelError::damaged(&shard.name, reason));
        }
        Ok((entry, shard, start..end))
    }
}

impl Shard {
    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), SavedModelError> {
        self.file.read_exact_at(buffer, at).map_err(|error| cannot_read(&self.name, error))
    }

    fn check(&self, key: &str, crc: u32, masked: u32) -> Result<(), SavedModelError> {
        if checksum::mask(crc) == masked {
            return Ok(());
        }
        Err(SavedModelError::damaged(&self.name, format!("{key} does not match its checksum")))
    }
}

fn cannot_read(file: &str, error: io::Error) -> SavedModelError {
    SavedModelError::Read { file: file.to_owned(), error }
}
