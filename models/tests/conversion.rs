//! Conversions of the real model: their vectors, and their files.

mod common;

use std::{fs, path::Path, sync::OnceLock};

use muse_model::{
    inference::kernel,
    model_dir::{FORMAT, MANIFEST_FILE, MODEL_FILE, ModelDir, SourcePrecision},
    precision::{Precision, PrecisionOption},
    selection,
};
use muse_models::{
    convert::{ConversionOutcome, ConvertError, convert},
    verify::{VerificationReport, verify},
};
use tch::Device;

use common::{difference, embed, f32_model, golden_ids, load, onnx_path, write_float32_export};

/// The report of the export in f32, once for all tests.
fn f32_report() -> &'static VerificationReport {
    static REPORT: OnceLock<VerificationReport> = OnceLock::new();
    REPORT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("model");
        convert(&onnx_path(), &out).expect("it converts");
        verify(&out, Precision::F32).expect("it is whole")
    })
}

#[test]
fn every_precision_matches_the_golden_data() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    convert(&onnx_path(), &out).unwrap();
    for (precision, least) in [
        (Precision::F32, 0.999_999),
        (Precision::Bf16, 0.999),
        (Precision::F16, 0.999),
        (Precision::Int8, 0.9996),
    ] {
        let other = (precision != Precision::F32).then(|| verify(&out, precision).unwrap());
        let report = other.as_ref().unwrap_or_else(|| f32_report());
        println!("{report}");
        assert_eq!(report.failures(), Vec::<String>::new());
        assert_eq!(report.token_mismatches, 0);
        assert!(report.worst_cosine >= least, "{precision}: {}", report.worst_cosine);
        // The distance of the int8 weights from the original: less means a wrong test, more a wrong
        // model.
        let original = &report.original;
        assert!((original.cosine - 0.9945).abs() < 1e-3, "{}", original.cosine);
        assert!((original.similarities.correlation - 0.9995).abs() < 2e-4, "{original}");
        assert!((0.005..0.02).contains(&original.similarities.largest), "{original}");
    }
}

#[test]
fn documented_similarities_are_those_of_the_model() {
    let table = f32_report().original.table();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/model/similarities.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, documented) = page.split_at(page.find("| text |").unwrap());
    assert_eq!(documented.lines().count(), table.lines().count());
    for (documented, row) in documented.lines().zip(table.lines()) {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        for (documented, cell) in cells(documented).iter().zip(cells(row)) {
            match (documented.parse::<f32>(), cell.parse::<f32>()) {
                // Another CPU may round the last digit differently.
                (Ok(documented), Ok(cell)) => assert!((documented - cell).abs() < 0.0011, "{row}"),
                _ => assert_eq!(*documented, cell),
            }
        }
    }
}

#[test]
fn sentence_has_the_same_vector_alone_and_in_any_batch() {
    let model = f32_model();
    let long = golden_ids().into_iter().max_by_key(Vec::len).unwrap();
    let mut sentences: Vec<Vec<i64>> =
        (1..=9).chain([31, 64, 65]).map(|length| long[..length].to_vec()).collect();
    sentences.extend(golden_ids().into_iter().step_by(7));
    let alone: Vec<Vec<f32>> =
        sentences.iter().flat_map(|sentence| embed(model, std::slice::from_ref(sentence))).collect();
    for size in [2, 3, 7, 40, sentences.len()] {
        let batched: Vec<Vec<f32>> = sentences.chunks(size).flat_map(|batch| embed(model, batch)).collect();
        assert!(difference(&alone, &batched) <= 1e-5, "batches of {size}: {}", difference(&alone, &batched));
    }
    sentences.reverse();
    let mut reversed = embed(model, &sentences);
    reversed.reverse();
    assert!(difference(&alone, &reversed) <= 1e-5, "in reverse: {}", difference(&alone, &reversed));
}

#[test]
fn invalid_batch_is_rejected() {
    let model = f32_model();
    assert_eq!(model.embed(&[], &[]).unwrap(), Vec::<f32>::new());
    let huge = [i64::MAX, i64::MAX];
    let cases: [(&[i64], &[i64]); 7] = [
        (&[1, 2], &[]),
        (&[], &[1]),
        (&[1, 2], &[2, 0]),
        (&[1, 2], &[3, -1]),
        (&[1, 2], &[1]),
        (&[1, 128_000], &[2]),
        (&[1, -1], &[2]),
    ];
    for (ids, lengths) in cases.into_iter().chain([(&[1, 2][..], &huge[..])]) {
        assert!(model.embed(ids, lengths).is_err(), "{ids:?} {lengths:?}");
    }
    assert_eq!(model.embed(&[1, 127_999], &[2]).unwrap().len(), 512);
}

#[test]
fn float32_export_is_converted() {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("float32.onnx");
    write_float32_export(&onnx);
    let out = folder.path().join("float32");
    convert(&onnx, &out).unwrap();
    fs::remove_file(&onnx).unwrap();

    let dir = ModelDir::open(&out).unwrap();
    assert_eq!(dir.manifest().source.precision, SourcePrecision::Float32);
    let sentences: Vec<Vec<i64>> = golden_ids().into_iter().step_by(9).collect();
    let from_floats = embed(&load(&out), &sentences);
    let from_bytes = embed(f32_model(), &sentences);
    assert!(difference(&from_floats, &from_bytes) <= 1e-5);

    // `auto` does not consider int8, whose quality is documented for integers of the source only.
    let reason =
        |dir: &ModelDir| selection::load(dir, Device::Cpu, PrecisionOption::Auto, 16).unwrap().reason;
    assert!(!reason(&dir).contains("int8"), "{}", reason(&dir));
    let of_integers = folder.path().join("int8");
    convert(&onnx_path(), &of_integers).unwrap();
    let from_integers = reason(&ModelDir::open(&of_integers).unwrap());
    let has_kernel = kernel(Precision::Int8, Device::Cpu).is_some();
    assert_eq!(from_integers.contains("int8"), has_kernel, "{from_integers}");

    // Its weights are dequantised int8 and not the original ones: it fails the comparisons with the
    // published numbers, and nothing else.
    let report = verify(&out, Precision::F32).unwrap();
    let failures = report.failures();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].contains("20 published components of the original"), "{failures:?}");
    assert!(failures[1].contains("136 published similarities of the original"), "{failures:?}");
    // The golden vectors are those of the same weights.
    assert!(!report.to_string().contains("judged loosely"), "{report}");
    assert!(report.worst_cosine >= 0.999_999, "{report}");
}

#[test]
fn second_conversion_changes_nothing_and_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let model_file = out.join(MODEL_FILE);
    assert_eq!(convert(&onnx_path(), &out).unwrap(), ConversionOutcome::Converted);
    let written = fs::metadata(&model_file).unwrap().modified().unwrap();
    assert_eq!(convert(&onnx_path(), &out).unwrap(), ConversionOutcome::UpToDate);
    assert_eq!(fs::metadata(&model_file).unwrap().modified().unwrap(), written);

    // The conversion replaces a damaged directory.
    let reason = || match convert(&onnx_path(), &out).unwrap() {
        ConversionOutcome::ConvertedAgain(reason) => reason,
        other => panic!("{other:?}"),
    };
    fs::write(&model_file, "damaged").unwrap();
    assert!(reason().starts_with("it has a damaged model.pt"));
    // A directory of an older version.
    let manifest = fs::read_to_string(out.join(MANIFEST_FILE)).unwrap();
    let older = manifest.replace(&format!("\"format\": {FORMAT}"), "\"format\": 3");
    fs::write(out.join(MANIFEST_FILE), older).unwrap();
    assert_eq!(reason(), format!("it had the format 3, not {FORMAT}"));
    fs::write(out.join(MANIFEST_FILE), "damaged").unwrap();
    assert!(reason().starts_with("it has an invalid manifest.json"));
    ModelDir::open(&out).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn output_that_is_a_symbolic_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let [version, current] = ["v1", "current"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink("v1", &current).unwrap();
    // It refers to nothing.
    assert!(matches!(convert(&onnx_path(), &current), Err(ConvertError::Write { .. })));
    fs::create_dir(&version).unwrap();
    convert(&onnx_path(), &current).unwrap();
    assert!(current.is_symlink());
    ModelDir::open(&version).unwrap();
}

#[test]
fn module_contains_no_device() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    convert(&onnx_path(), &out).unwrap();
    let mut archive = zip::ZipArchive::new(fs::File::open(out.join(MODEL_FILE)).unwrap()).unwrap();
    let names = archive.file_names().map(|name| name.unwrap().into_owned());
    let name = names.into_iter().find(|name| name.ends_with(".py")).unwrap();
    let code = std::io::read_to_string(archive.by_name(&name).unwrap()).unwrap();
    // The device of a new tensor is that of an input.
    assert!(code.contains("prim.device(ids)"), "{code}");
    assert!(!code.contains("torch.device"), "{code}");
}

#[test]
fn leftovers_of_a_killed_conversion_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    // No process has the first id: the largest on Linux is 2^22. In a container the next process
    // often has the id of the killed one.
    let left =
        [99_999_999, std::process::id()].map(|process| folder.path().join(format!(".model.new-{process}")));
    for left in &left {
        fs::create_dir(left).unwrap();
        fs::write(left.join(MODEL_FILE), "half of it").unwrap();
    }
    convert(&onnx_path(), &folder.path().join("model")).unwrap();
    assert!(left.iter().all(|left| !left.exists()));
}
