//! The threat model names tests, which have to exist.

use std::{fs, path::Path};

use muse_tests::root;

/// The text of all sources of tests in a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("it is a folder").map(|entry| entry.expect("it can be listed")) {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).expect("it is text");
        }
    }
    text
}

#[test]
fn each_test_that_it_names_exists() {
    let model = fs::read_to_string(root().join("docs/internals/threat-model.md")).unwrap();
    let folders = ["auth", "chassis", "embedder", "gateway", "tests"];
    let sources: String = folders.iter().map(|folder| sources(&root().join(folder))).collect();
    let names: Vec<_> =
        model.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}
