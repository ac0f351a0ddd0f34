//! The downloads of the build (`models/transfer.py`, `models/tfhub.py`).

use std::{path::Path, process::Command};

#[test]
fn downloads_resume_and_report_failures() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tfhub_test.py");
    let output = Command::new("python3").arg("-B").arg(tests).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
