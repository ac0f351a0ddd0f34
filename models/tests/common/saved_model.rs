//! Writes SavedModels: one as TensorFlow wrote it, and others with all variants that readers must
//! support.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flate2::read::GzDecoder;
use muse_model::model_dir::FileEntry;
use prost::Message;

use super::{
    FloatTensor, float_tensors, onnx_model, sentencepiece_model,
    table::{TableOptions, mask, varint, write_table},
};

/// The parts of TensorFlow's files that do not follow from the ONNX export; see the README there.
const GRAPH: &[u8] = include_bytes!("../saved_model/saved_model.pb.gz");
const INDEX: &[u8] = include_bytes!("../saved_model/variables.index");
const OBJECT_GRAPH: &[u8] = include_bytes!("../saved_model/object_graph.pb.gz");
/// Where TensorFlow's `saved_model.pb` contains the SentencePiece model.
const TOKENIZER_AT: [usize; 2] = [3_067, 968_608];
/// sha256 of TensorFlow's files.
const GRAPH_SHA256: &str = "73fbc55a52470c6c6e0c92ab6081b1f89af36e7cc930a2d97ce9a52f33f304cf";
const DATA_SHA256: &str = "8b470cfbcc9938e8bfcb7a435360acb8ed7c250ac3422174079df1e498282e8d";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleHeaderProto {
    #[prost(int32, tag = "1")]
    pub(crate) num_shards: i32,
    #[prost(int32, tag = "2")]
    pub(crate) endianness: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) version: Option<VersionDef>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionDef {
    #[prost(int32, tag = "1")]
    pub(crate) producer: i32,
    #[prost(int32, tag = "2")]
    pub(crate) min_consumer: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleEntryProto {
    #[prost(int32, tag = "1")]
    pub(crate) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
    #[prost(int32, tag = "3")]
    pub(crate) shard_id: i32,
    #[prost(int64, tag = "4")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    #[prost(fixed32, tag = "6")]
    pub(crate) crc32c: u32,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) slices: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "2")]
    pub(crate) dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dim {
    #[prost(int64, tag = "1")]
    pub(crate) size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct TrackableObjectGraph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<TrackableObject>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackableObject {
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<SerializedTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct SerializedTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    full_name: String,
    #[prost(string, tag = "3")]
    checkpoint_key: String,
}

/// A message with one field of bytes per number, which is enough for the messages around the nodes.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let field =
        |(number, bytes): &(u8, &[u8])| [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat();
    fields.iter().flat_map(field).collect()
}

/// A `saved_model.pb` with a SentencePiece model in a function of the library, and signatures.
pub(crate) fn graph(tokenizer: Option<&[u8]>, signatures: &[&str]) -> Vec<u8> {
    let node = |op: &str, attributes: &[u8]| message(&[(1, b"name"), (2, op.as_bytes()), (5, attributes)]);
    let attribute = |key: &str, value: &[u8]| message(&[(1, key.as_bytes()), (2, &message(&[(2, value)]))]);
    let mut function = message(&[(3, &node("Const", &attribute("model", b"of another node")))]);
    if let Some(model) = tokenizer {
        function.extend(message(&[(3, &node("SentencepieceOp", &attribute("model", model)))]));
    }
    let graph = message(&[(1, &node("StatefulPartitionedCall", &[])), (2, &message(&[(1, &function)]))]);
    let signatures: Vec<u8> = signatures
        .iter()
        .flat_map(|name| message(&[(5, &message(&[(1, name.as_bytes()), (2, b"")]))]))
        .collect();
    // Schema version 1, as a varint.
    [&[8, 1][..], &message(&[(2, &[message(&[(2, &graph)]), signatures].concat())])].concat()
}

/// The bytes of a tensor that is one string, and the checksum of its entry.
fn string_tensor(bytes: &[u8]) -> (Vec<u8>, u32) {
    let length = crc32c::crc32c(&(bytes.len() as u32).to_le_bytes());
    let masked = mask(length).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(length, &masked), bytes);
    ([&varint(bytes.len() as u64), &masked[..], bytes].concat(), mask(crc))
}

/// Variants of the files of variables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BundleOptions {
    pub(crate) table: TableOptions,
    /// The number of data files.
    pub(crate) shards: i32,
    /// Whether the keys are those of objects, or names as in TensorFlow 1.
    pub(crate) object_graph: bool,
}

/// A variable by its full name.
pub(crate) type Variable = (String, FloatTensor);

/// Writes `variables/` of a SavedModel. `change` may change the header and the entries.
pub(crate) fn write_variables(
    folder: &Path,
    variables: &[Variable],
    options: BundleOptions,
    change: impl FnOnce(&mut BundleHeaderProto, &mut BTreeMap<String, BundleEntryProto>),
) {
    let folder = folder.join("variables");
    fs::create_dir_all(&folder).expect("the test's own folder is writable");
    let mut files: Vec<(BufWriter<File>, i64)> = (0..options.shards)
        .map(|shard| {
            let name = format!("variables.data-{shard:05}-of-{:05}", options.shards);
            (BufWriter::new(File::create(folder.join(name)).expect("it is writable")), 0)
        })
        .collect();
    let mut entries = BTreeMap::new();
    let mut append = |shard: i32, bytes: &[u8]| {
        let (file, end) = &mut files[shard as usize];
        file.write_all(bytes).expect("it is writable");
        *end += bytes.len() as i64;
        *end - bytes.len() as i64
    };
    let mut nodes = vec![TrackableObject::default()];
    for (position, (name, tensor)) in variables.iter().enumerate() {
        let key = if options.object_graph {
            format!("variables/{position}/.ATTRIBUTES/VARIABLE_VALUE")
        } else {
            name.clone()
        };
        nodes.push(TrackableObject {
            attributes: vec![SerializedTensor {
                name: "VARIABLE_VALUE".to_owned(),
                full_name: name.clone(),
                checkpoint_key: key.clone(),
            }],
        });
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shard_id = position as i32 % options.shards;
        let entry = BundleEntryProto {
            dtype: 1,
            shape: Some(TensorShapeProto {
                dim: tensor.shape.iter().map(|size| Dim { size: *size }).collect(),
            }),
            shard_id,
            offset: append(shard_id, &bytes),
            size: bytes.len() as i64,
            crc32c: mask(crc32c::crc32c(&bytes)),
            slices: Vec::new(),
        };
        entries.insert(key, entry);
    }
    if options.object_graph {
        let (bytes, crc32c) = string_tensor(&TrackableObjectGraph { nodes }.encode_to_vec());
        let entry = BundleEntryProto {
            dtype: 7,
            shape: Some(TensorShapeProto::default()),
            offset: append(0, &bytes),
            size: bytes.len() as i64,
            crc32c,
            ..BundleEntryProto::default()
        };
        entries.insert("_CHECKPOINTABLE_OBJECT_GRAPH".to_owned(), entry);
    }
    for (file, _) in &mut files {
        file.flush().expect("it is writable");
    }
    let version = Some(VersionDef { producer: 1, min_consumer: 0 });
    let mut header = BundleHeaderProto { num_shards: options.shards, endianness: 0, version };
    change(&mut header, &mut entries);
    let mut table = vec![(Vec::new(), header.encode_to_vec())];
    table.extend(entries.iter().map(|(key, entry)| (key.clone().into_bytes(), entry.encode_to_vec())));
    fs::write(folder.join("variables.index"), write_table(&table, options.table)).expect("it is writable");
}

/// The number of parts of a variable, by its name and its size on the first axis; 0 is a variable
/// without parts.
pub(crate) type PartCount = fn(&str, i64) -> usize;

/// The variables of the original with the weights of the ONNX export, divided into parts. The table
/// has `table_shards` shards.
pub(crate) fn original_variables(table_shards: usize, part_count: PartCount) -> Vec<Variable> {
    const ENCODER: &str = "StatefulPartitionedCall/";
    let tensors = float_tensors(&onnx_model());
    let columns = 512;
    let table = original_table(&tensors);
    let mut variables = Vec::new();
    for shard in 0..table_shards {
        let values: Vec<f32> =
            table.chunks_exact(columns).skip(shard).step_by(table_shards).flatten().copied().collect();
        let shape = vec![(values.len() / columns) as i64, columns as i64];
        variables.push((format!("Embeddings/sharded_{shard}"), FloatTensor { shape, values }));
    }
    let ends = ["kernel:0", "bias:0", "weights:0", "gamma:0", "beta:0"];
    let mut names: Vec<&String> = tensors
        .keys()
        .filter(|name| name.starts_with("StatefulPartitionedCall/EncoderDNN/"))
        .filter(|name| ends.iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    for name in names {
        let own = name.trim_start_matches(ENCODER).trim_end_matches(":0");
        let tensor = &tensors[name];
        match part_count(own, tensor.shape[0]) {
            0 => variables.push((own.to_owned(), tensor.clone())),
            count => {
                let parts = split(tensor, count).into_iter().enumerate();
                variables.extend(parts.map(|(part, tensor)| (format!("{own}/part_{part}"), tensor)));
            }
        }
    }
    variables
}

/// The table of the export in token order.
fn original_table(tensors: &HashMap<String, FloatTensor>) -> Vec<f32> {
    let shards: Vec<&FloatTensor> =
        (1..=17).map(|shard| &tensors[&format!("Func/StatefulPartitionedCall/input/_{shard}:0")]).collect();
    let rows = 0..shards[0].values.len() / 512;
    rows.flat_map(|row| shards.iter().flat_map(move |shard| &shard.values[row * 512..(row + 1) * 512]))
        .copied()
        .collect()
}

/// Parts along the first axis, the longer ones first, as `tf.fixed_size_partitioner` makes them.
fn split(tensor: &FloatTensor, count: usize) -> Vec<FloatTensor> {
    let rows = tensor.shape[0] as usize;
    let row = tensor.values.len() / rows;
    let mut start = 0;
    (0..count)
        .map(|part| {
            let own = rows / count + usize::from(part < rows % count);
            let values = tensor.values[start * row..(start + own) * row].to_vec();
            start += own;
            FloatTensor { shape: [&[own as i64], &tensor.shape[1..]].concat(), values }
        })
        .collect()
}

/// The folder of the SavedModel that TensorFlow wrote with the weights of the ONNX export; see
/// `tests/saved_model/README.md`. It is written once per build folder.
pub(crate) fn tensorflow_model() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("saved_model");
        if !is_tensorflow_model(&folder) {
            write_tensorflow_model(&folder);
            assert!(is_tensorflow_model(&folder), "the files in {} are not TensorFlow's", folder.display());
        }
        folder
    })
}

fn is_tensorflow_model(folder: &Path) -> bool {
    let is = |name: &str, sha256: &str| {
        FileEntry::of(&folder.join(name)).is_ok_and(|entry| entry.sha256 == sha256)
    };
    is("saved_model.pb", GRAPH_SHA256)
        && is("variables/variables.data-00000-of-00001", DATA_SHA256)
        && fs::read(folder.join("variables/variables.index")).is_ok_and(|bytes| bytes == INDEX)
}

fn write_tensorflow_model(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("variables")).expect("the build folder is writable");
    let model = onnx_model();
    let tokenizer = sentencepiece_model(&model);
    let cut = unzipped(GRAPH);
    let [first, second] = TOKENIZER_AT;
    let graph = [&cut[..first], tokenizer, &cut[first..second], tokenizer, &cut[second..]].concat();
    fs::write(folder.join("saved_model.pb"), graph).expect("it is writable");
    fs::write(folder.join("variables/variables.index"), INDEX).expect("it is writable");

    // The values are in the order of the object graph, which is the last.
    let object_graph = unzipped(OBJECT_GRAPH);
    let nodes = TrackableObjectGraph::decode(object_graph.as_slice()).expect("it is an object graph").nodes;
    let attributes = nodes.into_iter().flat_map(|node| node.attributes);
    let parts = |_: &str, rows: i64| if rows < 17 { 1 } else { 17 };
    let variables: HashMap<String, FloatTensor> = original_variables(17, parts).into_iter().collect();
    let file = File::create(folder.join("variables/variables.data-00000-of-00001")).expect("it is writable");
    let mut file = BufWriter::new(file);
    for attribute in attributes {
        for value in &variables[&attribute.full_name].values {
            file.write_all(&value.to_le_bytes()).expect("it is writable");
        }
    }
    file.write_all(&string_tensor(&object_graph).0).expect("it is writable");
    file.flush().expect("it is writable");
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut unzipped = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut unzipped).expect("it is compressed with gzip");
    unzipped
}

/// Writes a tarball, compressed with gzip or not, of files of a folder under a prefix.
pub(crate) fn write_tarball(tarball: &Path, folder: &Path, names: &[&str], prefix: &str, gzip: bool) {
    let file = File::create(tarball).expect("it is writable");
    let stream: Box<dyn Write> = if gzip {
        Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
    } else {
        Box::new(file)
    };
    let mut builder = tar::Builder::new(stream);
    for name in names {
        builder.append_path_with_name(folder.join(name), format!("{prefix}{name}")).expect("it is writable");
    }
    builder.into_inner().expect("it is writable").flush().expect("it is writable");
}
