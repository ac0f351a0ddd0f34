//! Invalid or damaged input is rejected with an error of one line that names it.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use muse_model::{
    model_dir::{MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE},
    precision::Precision,
};
use muse_models::{
    convert::{ConvertError, convert},
    verify::verify,
};

use common::{ModelProto, onnx_model, onnx_path, write_onnx};

fn error_of(change: impl FnOnce(&mut ModelProto)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let onnx = folder.path().join("changed.onnx");
    let mut model = onnx_model();
    change(&mut model);
    write_onnx(&model, &onnx);
    let error = convert(&onnx, &folder.path().join("model")).expect_err("it is rejected");
    assert_eq!(
        fs::read_dir(folder.path()).expect("it is readable").count(),
        1,
        "the conversion leaves no files"
    );
    error.to_string()
}

#[test]
fn missing_or_misshapen_tensor_is_named() {
    let weights = "StatefulPartitionedCall/EncoderDNN/CNN_layers/ngram_order_3/Ngram-3-Conv/weights:0";
    for name in [weights, "Func/StatefulPartitionedCall/input/_9:0"] {
        let quantised = format!("{name}_quantized");
        let error = error_of(|model| {
            model.graph.as_mut().unwrap().initializer.retain(|tensor| tensor.name != quantised);
        });
        assert!(error.contains(&format!("no tensor {name}")), "{error}");
    }
    let scale = format!("{weights}_scale");
    let error = error_of(|model| {
        model.graph.as_mut().unwrap().initializer.retain(|tensor| tensor.name != scale);
    });
    assert!(error.contains(&scale), "{error}");

    let bias = "StatefulPartitionedCall/EncoderDNN/CNN_layers/dense/bias:0";
    let error = error_of(|model| {
        let tensors = &mut model.graph.as_mut().unwrap().initializer;
        tensors.iter_mut().find(|tensor| tensor.name == bias).unwrap().dims = vec![256, 2];
    });
    assert!(error.contains(bias) && error.contains("[256, 2]") && error.contains("[512]"), "{error}");
    let error = error_of(|model| {
        let tensors = &mut model.graph.as_mut().unwrap().initializer;
        tensors.iter_mut().find(|tensor| tensor.name == bias).unwrap().raw_data.truncate(100);
    });
    assert!(error.contains(bias) && error.contains("25 values"), "{error}");
}

#[test]
fn export_without_the_tokenizer_is_rejected() {
    let error = error_of(|model| model.graph.as_mut().unwrap().node.clear());
    assert!(error.contains("SentencepieceTokenizer"), "{error}");
}

#[test]
fn file_that_is_not_onnx_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let whole = fs::read(onnx_path()).unwrap();
    for bytes in [&b""[..], b"hello, this is text\n", b"PK\x03\x04", b"\x08\x07", &whole[..whole.len() / 2]] {
        let onnx = folder.path().join("file");
        fs::write(&onnx, bytes).unwrap();
        let error = convert(&onnx, &out).unwrap_err().to_string();
        assert!(error.ends_with("this is not an ONNX file, or not a complete one"), "{error}");
    }
    let missing = convert(&folder.path().join("missing"), &out);
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("missing: cannot be read: No such file"), "{missing}");
}

#[test]
fn unwritable_output_is_rejected_and_other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let error = |out: &Path| convert(&onnx_path(), out).unwrap_err();
    assert!(matches!(error(&file), ConvertError::OutputExists(_)));
    assert!(matches!(error(&file.join("model")), ConvertError::Write { .. }));
    assert!(matches!(error(Path::new("/proc/model")), ConvertError::Write { .. }));
    assert!(matches!(error(folder.path()), ConvertError::OutputExists(_)));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn flipped_byte_is_rejected_with_the_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    convert(&onnx_path(), &out).unwrap();
    for name in [MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE] {
        let path = out.join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 0x10;
        fs::write(&path, bad).unwrap();
        let error = verify(&out, Precision::F32).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn command_line_prints_an_error_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_muse-models"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let status = |output: &Output| output.status.code();
    assert_eq!(status(&run(&["--help"])), Some(0));
    assert_eq!(status(&run(&[])), Some(64));
    assert_eq!(status(&run(&["verify", "out", "--precision", "f64"])), Some(64));
    for arguments in [&["convert", "a.onnx", "out"][..], &["verify", "out"]] {
        let output = run(arguments);
        assert_eq!(status(&output), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("muse-models: ") && error.lines().count() == 1, "{error}");
    }
    let onnx = onnx_path();
    let arguments = ["convert", onnx.to_str().unwrap(), "out"];
    assert_eq!(status(&run(&arguments)), Some(0));
    let again = run(&arguments);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "out is up to date\n");
    let verified = run(&["verify", "out"]);
    assert_eq!(status(&verified), Some(0));
    assert!(String::from_utf8(verified.stdout).unwrap().ends_with("passed\n"));
}
