//! Conversions of SavedModels of full size: one that TensorFlow wrote, and one with other variants
//! of the format.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use muse_model::{
    model_dir::{Manifest, ModelDir, SourcePrecision},
    precision::Precision,
};
use muse_models::{
    convert::{ConversionOutcome, convert},
    source::{ModelSource, SourceKind},
};

use common::{
    converted, difference, embed, f32_model, golden_ids, load, onnx_path,
    saved_model::{
        BundleOptions, graph, original_variables, tensorflow_model, write_tarball, write_variables,
    },
    sentencepiece_model,
    table::TableOptions,
    write_float32_export,
};

/// The files of TensorFlow's SavedModel.
const FILES: [&str; 3] =
    ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"];
/// The most memory of a conversion, in bytes.
const MOST_MEMORY: u64 = 1_000_000_000;

/// The tests take gigabytes together.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tarball of TensorFlow's SavedModel.
fn tarball(folder: &Path) -> PathBuf {
    let path = folder.join("universal-sentence-encoder-multilingual_3.tar.gz");
    write_tarball(&path, tensorflow_model(), &FILES, "./", true);
    path
}

/// A cache as TF Hub makes it, with links to TensorFlow's SavedModel and a folder of another model.
fn tf_hub_cache(folder: &Path) -> PathBuf {
    let cache = folder.join("tfhub_modules");
    let (own, other) =
        ("26c892ffbc8d7b032f5a95f316e2841ed4f1608c", "063d866c06683311b44b4992fd46003be952409c");
    for name in FILES {
        let link = cache.join(own).join(name);
        fs::create_dir_all(link.parent().expect("it has a folder")).expect("the test's own files");
        std::os::unix::fs::symlink(tensorflow_model().join(name), link).expect("the test's own files");
    }
    fs::create_dir(cache.join(other)).expect("the test's own files");
    fs::write(cache.join(other).join("saved_model.pb"), "of another model").expect("the test's own files");
    for (hash, model) in
        [(own, "universal-sentence-encoder-multilingual/3"), (other, "universal-sentence-encoder/4")]
    {
        let text = format!(
            "Module: https://tfhub.dev/google/{model}\nDownload Time: 2026-01-02 03:04:05\nDownloader Hostname: host (PID:1)"
        );
        fs::write(cache.join(format!("{hash}.descriptor.txt")), text).expect("the test's own files");
    }
    cache
}

fn manifest(path: &Path) -> Manifest {
    ModelDir::open(path).expect("the test's own files").manifest().clone()
}

#[test]
fn tensorflow_model_converts_like_the_int8_export() {
    let _turn = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    assert_eq!(convert(tensorflow_model(), &out).unwrap(), ConversionOutcome::Converted);
    let sentences: Vec<Vec<i64>> = golden_ids().into_iter().step_by(9).collect();
    let vectors = embed(&load(&out), &sentences);
    let expected = embed(&converted(folder.path()), &sentences);
    assert!(difference(&vectors, &expected) <= 1e-6, "{}", difference(&vectors, &expected));
    let of_onnx = manifest(&folder.path().join("from_onnx"));
    assert_eq!(manifest(&out).fingerprint(Precision::F32), of_onnx.fingerprint(Precision::F32));
    let source = manifest(&out).source;
    assert_eq!(source.precision, SourcePrecision::Float32);
    assert_eq!(source.file, "saved_model");
}

#[test]
fn every_kind_of_source_has_the_same_fingerprint() {
    let _turn = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let cache = tf_hub_cache(folder.path());
    let hash = cache.join("26c892ffbc8d7b032f5a95f316e2841ed4f1608c");
    let sources = [
        (tensorflow_model().to_owned(), SourceKind::SavedModel),
        (tarball(folder.path()), SourceKind::Tarball),
        (cache, SourceKind::TfHubCache),
        (hash, SourceKind::TfHubCache),
    ];
    let listing =
        Command::new("sha256sum").args(FILES).current_dir(tensorflow_model()).output().unwrap().stdout;
    let list = folder.path().join("list");
    fs::write(&list, listing).unwrap();
    let documented = Command::new("sha256sum").arg(&list).output().unwrap().stdout;
    let documented = String::from_utf8(documented).unwrap()[..64].to_owned();
    for (path, kind) in &sources {
        let source = ModelSource::detect(path).unwrap();
        assert_eq!(source.kind(), *kind, "{}", path.display());
        assert_eq!(source.sha256().unwrap(), documented, "{}", path.display());
    }

    let out = folder.path().join("model");
    convert(&sources[1].0, &out).unwrap();
    let of_tarball = manifest(&out);
    for (path, _) in &sources {
        assert_eq!(convert(path, &out).unwrap(), ConversionOutcome::UpToDate);
    }
    convert(&sources[2].0, &folder.path().join("from_cache")).unwrap();
    let of_cache = manifest(&folder.path().join("from_cache"));
    assert_eq!(of_tarball.fingerprint(Precision::F32), of_cache.fingerprint(Precision::F32));
    assert_eq!(of_tarball.source.weights_sha256, of_cache.source.weights_sha256);
}

#[test]
fn snappy_model_with_other_parts_converts_the_same() {
    let _turn = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("saved");
    // Some variables without parts, some with one, the others with three; a table with five shards.
    let parts = |name: &str, rows: i64| match name.len() % 3 {
        0 => 0,
        1 => 1,
        _ => rows.min(3) as usize,
    };
    let mut variables = original_variables(5, parts);
    for (name, _) in &mut variables {
        name.insert_str(0, "module/");
    }
    let options = BundleOptions {
        table: TableOptions { snappy: true, restart_interval: 3, block_bytes: 400 },
        shards: 3,
        object_graph: true,
    };
    write_variables(&model, &variables, options, |_, _| {});
    drop(variables);
    let onnx = common::onnx_model();
    fs::write(model.join("saved_model.pb"), graph(Some(sentencepiece_model(&onnx)), &["serving_default"]))
        .unwrap();
    drop(onnx);
    let out = folder.path().join("model");
    convert(&model, &out).unwrap();
    let sentences: Vec<Vec<i64>> = golden_ids().into_iter().step_by(9).collect();
    let vectors = embed(&load(&out), &sentences);
    let expected = embed(f32_model(), &sentences);
    assert!(difference(&vectors, &expected) <= 1e-6, "{}", difference(&vectors, &expected));
}

#[test]
fn conversion_requires_less_than_a_gigabyte() {
    let _turn = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let float32 = folder.path().join("float32.onnx");
    write_float32_export(&float32);
    let sources = [
        (onnx_path(), "an ONNX file"),
        (float32, "an ONNX file"),
        (tensorflow_model().to_owned(), "the folder of a SavedModel"),
        (tarball(folder.path()), "a tarball of a SavedModel"),
        (tf_hub_cache(folder.path()), "a TF Hub cache folder"),
    ];
    for (source, kind) in sources {
        let out = folder.path().join("model");
        // The system reports the peak of a finished child, in KiB.
        let script = "import resource, subprocess, sys\n\
            done = subprocess.run(sys.argv[1:], check=True)\n\
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
        let output = Command::new("python3")
            .args(["-c", script, env!("CARGO_BIN_EXE_muse-models"), "convert"])
            .args([&source, &out])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        assert!(printed.contains(&format!(", {kind}, into ")), "{printed}");
        let peak: u64 = printed.lines().last().unwrap().parse().unwrap();
        println!("{}: {peak} KiB", source.display());
        assert!(peak * 1024 < MOST_MEMORY, "{}: {peak} KiB", source.display());
        fs::remove_dir_all(&out).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
    }
}
