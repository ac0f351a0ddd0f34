//! Links and test names in the documents exist, and generated documents are up to date.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use muse_tests::root;

/// The concatenated Rust sources in a folder.
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
fn tests_named_in_the_threat_model_exist() {
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

/// The files of a folder, and those of its subfolders if `recursive`.
fn files(folder: &Path, recursive: bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is a folder");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let below = |path: PathBuf| match path.is_dir() {
        true if recursive => files(&path, true),
        true => Vec::new(),
        false => vec![path],
    };
    paths.flat_map(below).collect()
}

/// The Markdown files in the root and in the manual.
fn documents() -> Vec<PathBuf> {
    let all = [files(root(), false), files(&root().join("docs"), true)].concat();
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    all.into_iter().filter(is_markdown).collect()
}

#[test]
fn relative_links_lead_to_files() {
    let files = documents();
    assert!(files.len() > 40, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains(':')) {
            let target = file.parent().unwrap().join(link);
            assert!(target.exists(), "{}: there is no {link}", file.display());
        }
    }
}

#[test]
fn readme_is_a_page_and_the_summary_lists_the_manual() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150, "{} lines", readme.lines().count());
    let manual = root().join("docs");
    let summary = fs::read_to_string(manual.join("SUMMARY.md")).unwrap();
    for page in documents().iter().filter_map(|file| file.strip_prefix(&manual).ok()) {
        let is_listed = summary.contains(&format!("]({})", page.display()));
        assert!(is_listed || page == Path::new("SUMMARY.md"), "{} is not in the summary", page.display());
    }
}

#[test]
fn configuration_reference_has_the_options_of_the_programs() {
    let mut check = Command::new("python3");
    check.arg(root().join("docs/configuration.py")).arg("--check").arg(root().join("target/release"));
    let output = check.output().expect("python3 is there");
    let printed = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "run docs/configuration.py target/release:\n{}",
        String::from_utf8_lossy(&printed)
    );
}
