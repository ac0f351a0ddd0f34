//! Damaged, incomplete and other SavedModels, in small: each is an error that names the problem, or
//! its values are those that were written.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use muse_models::source::{ModelSource, SourceKind};
use proptest::prelude::*;
use tempfile::TempDir;

use common::{
    FloatTensor,
    saved_model::{
        BundleEntryProto, BundleHeaderProto, BundleOptions, Dim, TensorShapeProto, Variable, VersionDef,
        graph, write_tarball, write_variables,
    },
    table::{TableOptions, block, mask, varint, write_table},
};

const INDEX: &str = "variables/variables.index";
const DATA: &str = "variables/variables.data-00000-of-00001";
const FILES: [&str; 3] = ["saved_model.pb", DATA, INDEX];
/// Blocks as TensorFlow writes them.
const PLAIN: TableOptions = TableOptions { snappy: false, restart_interval: 16, block_bytes: 262_144 };
const USUAL: BundleOptions = BundleOptions { table: PLAIN, shards: 1, object_graph: true };
/// Small compressed blocks.
const SNAPPY: BundleOptions =
    BundleOptions { table: TableOptions { snappy: true, restart_interval: 2, block_bytes: 80 }, ..USUAL };

fn variable(name: &str, shape: &[i64], first: f32) -> Variable {
    let count = shape.iter().product::<i64>();
    let values = (0..count).map(|value| first + value as f32).collect();
    (name.to_owned(), FloatTensor { shape: shape.to_vec(), values })
}

/// A kernel (5, 2) in three parts, one of which is empty, and a bias without parts.
fn variables() -> Vec<Variable> {
    vec![
        variable("EncoderDNN/CNN_layers/a/kernel/part_0", &[3, 2], 0.0),
        variable("EncoderDNN/CNN_layers/a/kernel/part_1", &[2, 2], 6.0),
        variable("EncoderDNN/CNN_layers/a/kernel/part_2", &[0, 2], 0.0),
        variable("EncoderDNN/CNN_layers/b/bias", &[1, 3], 20.0),
        variable("save_counter", &[], 7.0),
    ]
}

type Values = [Vec<f32>; 2];

/// What [`variables`] contains.
fn expected() -> Values {
    [(0..10).map(|value| value as f32).collect(), vec![20.0, 21.0, 22.0]]
}

fn write_model(folder: &Path, options: BundleOptions) {
    write_variables(folder, &variables(), options, |_, _| {});
    fs::write(folder.join("saved_model.pb"), graph(Some(b"the tokenizer"), &["serving_default"]))
        .expect("the test's own files");
}

fn model(options: BundleOptions) -> TempDir {
    let folder = tempfile::tempdir().expect("the test's own files");
    write_model(folder.path(), options);
    folder
}

/// Reads all that a conversion reads, or the error.
fn read(path: &Path) -> Result<(Values, Vec<u8>), String> {
    let line = |error: String| {
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let source = ModelSource::detect(path).map_err(|error| line(error.to_string()))?;
    source.sha256().map_err(|error| line(error.to_string()))?;
    let open = source.open(&std::env::temp_dir()).map_err(|error| line(error.to_string()))?;
    let values = |name: &str, shape: &[i64]| {
        open.weights.encoder(name, shape).map_err(|error| line(error.to_string()))
    };
    Ok(([values("CNN_layers/a/kernel", &[5, 2])?, values("CNN_layers/b/bias", &[3])?], open.tokenizer))
}

/// The error of a model whose header and entries were changed, with correct checksums.
fn error_of(change: impl FnOnce(&mut BundleHeaderProto, &mut BTreeMap<String, BundleEntryProto>)) -> String {
    let folder = model(USUAL);
    write_variables(folder.path(), &variables(), USUAL, change);
    read(folder.path()).expect_err("it is rejected")
}

/// The error of a model with other variables.
fn error_with(variables: &[Variable]) -> String {
    let folder = model(USUAL);
    write_variables(folder.path(), variables, USUAL, |_, _| {});
    read(folder.path()).expect_err("it is rejected")
}

fn entry(entries: &mut BTreeMap<String, BundleEntryProto>, position: usize) -> &mut BundleEntryProto {
    entries.get_mut(&format!("variables/{position}/.ATTRIBUTES/VARIABLE_VALUE")).expect("it is there")
}

#[test]
fn every_variant_of_the_format_is_read() {
    for snappy in [false, true] {
        for (restart_interval, block_bytes) in [(1, 1), (2, 80), (16, 200), (1000, 1 << 20)] {
            for (shards, object_graph) in [(1, true), (4, true), (2, false)] {
                let table = TableOptions { snappy, restart_interval, block_bytes };
                let options = BundleOptions { table, shards, object_graph };
                let folder = model(options);
                assert_eq!(read(folder.path()), Ok((expected(), b"the tokenizer".to_vec())), "{options:?}");
            }
        }
    }
}

#[test]
fn truncated_or_flipped_byte_never_changes_values() {
    for options in [USUAL, SNAPPY] {
        let folder = model(options);
        for name in [INDEX, DATA] {
            let path = folder.path().join(name);
            let good = fs::read(&path).unwrap();
            let mut rejected = 0;
            let mut check = |bytes: &[u8], what: String| {
                fs::write(&path, bytes).unwrap();
                match read(folder.path()) {
                    Ok((values, _)) => assert_eq!(values, expected(), "{name} {what}"),
                    Err(error) => {
                        rejected += 1;
                        assert!(error.contains("damaged"), "{name} {what}: {error}");
                    }
                }
            };
            for length in 0..good.len() {
                check(&good[..length], format!("truncated to {length}"));
            }
            for position in 0..good.len() {
                let mut bad = good.clone();
                bad[position] ^= 1 << (position % 8);
                check(&bad, format!("flipped at {position}"));
            }
            // Unused are a counter of four bytes, and the padding of the footer.
            assert!(rejected >= 2 * good.len() - 45, "{name}: {rejected} of {}", 2 * good.len());
            fs::write(&path, good).unwrap();
        }
        // The graph has no checksums.
        let path = folder.path().join("saved_model.pb");
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            let _ = read(folder.path());
        }
        for position in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[position / 8] ^= 1 << (position % 8);
            fs::write(&path, bad).unwrap();
            let _ = read(folder.path());
        }
    }
}

#[test]
fn damaged_tarball_never_changes_values() {
    let folder = model(USUAL);
    for gzip in [true, false] {
        let path = folder.path().join("model.tar.gz");
        write_tarball(&path, folder.path(), &FILES, "./", gzip);
        let good = fs::read(&path).unwrap();
        assert_eq!(read(&path).unwrap().0, expected());
        let step = good.len() / 700 + 1;
        for position in (0..good.len()).step_by(step) {
            fs::write(&path, &good[..position]).unwrap();
            if let Ok((values, _)) = read(&path) {
                assert!(!gzip && values == expected(), "truncated to {position}");
            }
            let mut bad = good.clone();
            bad[position] ^= 0x10;
            fs::write(&path, bad).unwrap();
            if let Ok((values, _)) = read(&path) {
                assert_eq!(values, expected(), "flipped at {position}");
            }
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn invalid_entries_with_correct_checksums_are_rejected() {
    type Change = fn(&mut BundleHeaderProto, &mut BTreeMap<String, BundleEntryProto>);
    let cases: [(&str, Change); 17] = [
        ("big-endian", |header, _| header.endianness = 1),
        ("later version", |header, _| header.version = Some(VersionDef { producer: 9, min_consumer: 2 })),
        ("lacks variables/variables.data-00000-of-00002", |header, _| header.num_shards = 2),
        ("lacks variables/variables.data-00000-of-2147483647", |header, _| header.num_shards = i32::MAX),
        ("does not exist", |header, _| header.num_shards = -1),
        ("is not float32", |_, entries| entry(entries, 1).dtype = 2),
        ("in slices", |_, entries| entry(entries, 1).slices = vec![Vec::new()]),
        ("does not exist", |_, entries| entry(entries, 1).shard_id = 1),
        ("does not exist", |_, entries| entry(entries, 1).shard_id = -1),
        ("malformed position", |_, entries| entry(entries, 1).offset = -1),
        ("malformed position", |_, entries| entry(entries, 1).size = -1),
        ("ends at byte", |_, entries| entry(entries, 1).offset = i64::MAX),
        ("another size", |_, entries| entry(entries, 1).size = 12),
        ("does not match its checksum", |_, entries| entry(entries, 1).crc32c ^= 1),
        ("parts of different shapes", |_, entries| {
            entry(entries, 1).shape =
                Some(TensorShapeProto { dim: vec![Dim { size: i64::MAX }, Dim { size: 2 }] });
        }),
        ("no variable EncoderDNN/CNN_layers/a/kernel", |_, entries| {
            entries.remove("variables/1/.ATTRIBUTES/VARIABLE_VALUE");
        }),
        ("is not a string", |_, entries| {
            entries.get_mut("_CHECKPOINTABLE_OBJECT_GRAPH").unwrap().dtype = 1;
        }),
    ];
    for (part, change) in cases {
        let error = error_of(change);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn missing_or_misshapen_variables_are_named() {
    let without = |position: usize| {
        let mut variables = variables();
        variables.remove(position);
        error_with(&variables)
    };
    assert!(without(0).contains("no variable EncoderDNN/CNN_layers/a/kernel/part_0"), "{}", without(0));
    assert!(without(1).contains("no variable EncoderDNN/CNN_layers/a/kernel/part_1"), "{}", without(1));
    assert!(without(3).contains("no variable EncoderDNN/CNN_layers/b/bias"), "{}", without(3));
    let with = |position: usize, variable: Variable| {
        let mut variables = variables();
        variables[position] = variable;
        error_with(&variables)
    };
    let error = with(1, variable("EncoderDNN/CNN_layers/a/kernel/part_1", &[1, 2], 0.0));
    assert!(error.contains("a/kernel of the SavedModel has the shape [4, 2] instead of [5, 2]"), "{error}");
    let error = with(1, variable("EncoderDNN/CNN_layers/a/kernel/part_1", &[2, 3], 0.0));
    assert!(error.contains("a/kernel of the SavedModel has parts of different shapes"), "{error}");
    let error = with(4, variable("EncoderDNN/CNN_layers/b/bias", &[1, 3], 0.0));
    assert!(error.contains("two variables EncoderDNN/CNN_layers/b/bias"), "{error}");
}

#[test]
fn other_models_of_the_family_are_named() {
    let named = |tokenizer: Option<&[u8]>, signature: &str, variables: &[Variable]| {
        let folder = model(USUAL);
        write_variables(folder.path(), variables, USUAL, |_, _| {});
        fs::write(folder.path().join("saved_model.pb"), graph(tokenizer, &["serving_default", signature]))
            .unwrap();
        read(folder.path()).unwrap_err()
    };
    let large =
        variable("EncoderTransformer/Transformer/SparseTransformerEncode/Layer_0/kernel/part_0", &[1], 0.0);
    let english = variable("EncoderDNN/DNN/ResidualHidden_0/dense/kernel/part_0", &[1], 0.0);
    let cases = [
        (
            named(Some(b"sp"), "", std::slice::from_ref(&large)),
            "this is universal-sentence-encoder-multilingual-large:",
        ),
        (
            named(Some(b"sp"), "question_encoder", &variables()),
            "this is universal-sentence-encoder-multilingual-qa:",
        ),
        (named(None, "", &[large]), "this is universal-sentence-encoder-large:"),
        (named(None, "", &[english]), "this is universal-sentence-encoder, the English model:"),
        (named(None, "", &variables()), "no node SentencepieceOp"),
        (named(Some(b""), "", &variables()), "no node SentencepieceOp"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn folder_without_a_saved_model_names_the_missing_file() {
    let folder = model(USUAL);
    let error = |path: &Path| read(path).unwrap_err();
    let root = folder.path();
    assert!(
        error(&root.join("variables")).contains("neither this folder nor one in it contains saved_model.pb")
    );
    for file in FILES {
        let error = error(&root.join(file));
        assert!(error.contains("give its folder") && error.ends_with(&root.display().to_string()), "{error}");
    }
    for file in FILES {
        let good = fs::read(root.join(file)).unwrap();
        fs::remove_file(root.join(file)).unwrap();
        let error = error(root);
        assert!(error.contains(file), "{error}");
        fs::write(root.join(file), good).unwrap();
    }
    assert!(error(&root.join("missing")).contains("cannot be read: No such file"));
    assert!(read(root).is_ok());
}

#[test]
fn cache_with_several_models_requires_a_choice() {
    let cache = tempfile::tempdir().unwrap();
    let folders: [PathBuf; 2] = ["a", "b"].map(|letter| cache.path().join(letter.repeat(40)));
    write_model(&folders[0], USUAL);
    assert_eq!(ModelSource::detect(cache.path()).unwrap().kind(), SourceKind::TfHubCache);
    assert_eq!(ModelSource::detect(&folders[0]).unwrap().kind(), SourceKind::TfHubCache);
    assert!(read(cache.path()).is_ok());
    write_model(&folders[1], USUAL);
    let error = read(cache.path()).unwrap_err();
    assert!(folders.iter().all(|folder| error.contains(&folder.display().to_string())), "{error}");
    // The descriptor of TF Hub decides.
    let descriptor = |letter: &str, model: &str| {
        let text = format!("Module: https://tfhub.dev/google/{model}\nDownload Time: 2026-01-02");
        fs::write(cache.path().join(format!("{}.descriptor.txt", letter.repeat(40))), text).unwrap();
    };
    descriptor("a", "universal-sentence-encoder-multilingual-large/3");
    assert!(read(cache.path()).is_err());
    descriptor("b", "universal-sentence-encoder-multilingual/3");
    assert!(read(cache.path()).is_ok());
}

#[test]
fn tarball_without_one_complete_model_is_rejected() {
    let folder = model(USUAL);
    let path = folder.path().join("model.tar.gz");
    let error = |names: &[&str]| {
        write_tarball(&path, folder.path(), names, "3/", true);
        read(&path).unwrap_err()
    };
    assert!(error(&[INDEX, DATA]).contains("contains no saved_model.pb"));
    assert!(error(&["saved_model.pb", DATA]).contains("lacks variables/variables.index"));
    assert!(error(&["saved_model.pb", INDEX]).contains("lacks variables/variables.data-00000-of-00001"));
    assert!(
        error(&["saved_model.pb", INDEX, DATA, INDEX]).contains("contains variables/variables.index twice")
    );
    // A page of a portal for logins, compressed.
    let mut page = Vec::new();
    let text = b"<html>log in</html>".repeat(100);
    flate2::read::GzEncoder::new(text.as_slice(), flate2::Compression::fast())
        .read_to_end(&mut page)
        .unwrap();
    fs::write(&path, page).unwrap();
    assert!(read(&path).unwrap_err().contains("the tarball is damaged"), "{}", read(&path).unwrap_err());
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        write_tarball(&path, folder.path(), &order.map(|file| FILES[file]), "./", false);
        assert!(read(&path).is_ok(), "{order:?}");
    }
}

/// Writes an index with the entries, and reads the model.
fn read_index(index: &[u8]) -> Result<(Values, Vec<u8>), String> {
    let folder = model(USUAL);
    fs::write(folder.path().join(INDEX), index).expect("the test's own files");
    read(folder.path())
}

/// A table with one data block of these bytes, and a correct checksum.
fn table_of_block(contents: &[u8], compression: u8) -> Vec<u8> {
    let mut table = Vec::new();
    let mut append = |contents: &[u8], compression: u8| {
        let position = [varint(table.len() as u64), varint(contents.len() as u64)].concat();
        let data = [contents, &[compression]].concat();
        table.extend(&data);
        table.extend(mask(crc32c::crc32c(&data)).to_le_bytes());
        position
    };
    let data = append(contents, compression);
    let metaindex = append(&block(&[], 1), 0);
    let index = append(&block(&[(b"z".to_vec(), data)], 1), 0);
    let mut footer = [metaindex, index].concat();
    footer.resize(40, 0);
    [table, footer, 0xdb47_7524_8b80_fb57_u64.to_le_bytes().to_vec()].concat()
}

#[test]
fn crafted_sizes_are_rejected_before_allocation() {
    let huge = varint(u64::MAX);
    let restarts = [0, 0, 0, 0, 1, 0, 0, 0];
    let blocks = [
        // Sizes of a shared prefix, of a key and of a value.
        [&huge[..], &[0, 0], &restarts].concat(),
        [&[0][..], &huge, &[0], &restarts].concat(),
        [&[0, 0][..], &huge, &restarts].concat(),
        // A number of restart points.
        vec![0xff; 4],
        Vec::new(),
    ];
    for contents in blocks {
        assert!(read_index(&table_of_block(&contents, 0)).unwrap_err().contains("malformed"), "{contents:?}");
    }
    // Snappy data that claims to decompress to four gigabytes, and an unknown compression.
    let claim = [&varint(u64::from(u32::MAX))[..], &[0; 20]].concat();
    assert!(read_index(&table_of_block(&claim, 1)).unwrap_err().contains("not valid Snappy data"));
    assert!(read_index(&table_of_block(&claim, 7)).unwrap_err().contains("unknown compression"));
    // Keys that are not in order, and a key longer than all.
    let two = |a: &str, b: &str| block(&[(a.into(), Vec::new()), (b.into(), Vec::new())], 1);
    assert!(read_index(&table_of_block(&two("", ""), 0)).unwrap_err().contains("not in order"));
    assert!(read_index(&table_of_block(&two("b", "a"), 0)).unwrap_err().contains("not in order"));
    assert!(read_index(&table_of_block(&two("", &"k".repeat(2000)), 0)).unwrap_err().contains("malformed"));
    assert!(read_index(&table_of_block(&two("a", "b"), 0)).unwrap_err().contains("no header"));
    assert!(read_index(&vec![0; 9 << 20]).unwrap_err().contains("more than"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_block_is_an_error_or_read(contents in proptest::collection::vec(any::<u8>(), 0..300), snappy in 0..2_u8) {
        let _ = read_index(&table_of_block(&contents, snappy));
    }

    #[test]
    fn any_entry_is_an_error_or_read(
        fields in any::<(i32, i32, i64, i64, u32)>(),
        sizes in proptest::collection::vec(any::<i64>(), 0..4),
        small in any::<bool>(),
        position in 0..4_usize,
    ) {
        let folder = model(USUAL);
        write_variables(folder.path(), &variables(), USUAL, |_, entries| {
            let entry = entry(entries, position);
            (entry.dtype, entry.shard_id, entry.offset, entry.size, entry.crc32c) = fields;
            if small {
                (entry.dtype, entry.shard_id, entry.offset) = (1, 0, entry.offset.rem_euclid(64));
                entry.size = entry.size.rem_euclid(64);
            }
            entry.shape = Some(TensorShapeProto { dim: sizes.iter().map(|size| Dim { size: *size }).collect() });
        });
        let _ = read(folder.path());
    }

    #[test]
    fn any_values_are_read_as_written(
        rows in proptest::collection::vec(0..4_i64, 1..6),
        values in proptest::collection::vec(any::<f32>(), 40),
        shards in 1..4,
        snappy in any::<bool>(),
        restart_interval in 1..20_usize,
        block_bytes in 1..500_usize,
    ) {
        let mut parts = Vec::new();
        let mut start = 0;
        for (part, rows) in rows.iter().enumerate() {
            let values = values[start..start + *rows as usize * 2].to_vec();
            start += values.len();
            parts.push((format!("EncoderDNN/x/part_{part}"), FloatTensor { shape: vec![*rows, 2], values }));
        }
        let folder = tempfile::tempdir().unwrap();
        let table = TableOptions { snappy, restart_interval, block_bytes };
        write_variables(folder.path(), &parts, BundleOptions { table, shards, object_graph: true }, |_, _| {});
        fs::write(folder.path().join("saved_model.pb"), graph(Some(b"sp"), &[])).unwrap();
        let open = ModelSource::detect(folder.path()).unwrap().open(folder.path()).unwrap();
        let read = open.weights.encoder("x", &[rows.iter().sum(), 2]).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read), bits(&values[..start]));
    }
}

#[test]
fn index_with_many_entries_is_read_in_order() {
    // More parts than ten, whose names are not in numeric order, and more than one block.
    let variables: Vec<Variable> = (0..130)
        .rev()
        .map(|part| variable(&format!("EncoderDNN/x/part_{part}"), &[1, 1], part as f32))
        .collect();
    let folder = model(SNAPPY);
    write_variables(folder.path(), &variables, SNAPPY, |_, _| {});
    let open = ModelSource::detect(folder.path()).unwrap().open(folder.path()).unwrap();
    let read = open.weights.encoder("x", &[130, 1]).unwrap();
    assert_eq!(read, (0..130).map(|value| value as f32).collect::<Vec<_>>());
    // Not a table at all.
    assert!(write_table(&[], PLAIN).len() > 48);
    assert!(read_index(&write_table(&[], PLAIN)).unwrap_err().contains("no header"));
}
