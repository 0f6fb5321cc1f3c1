//! The files of this workspace, without what was built or is not ours.

use std::path::Path;

/// One file.
pub(crate) struct Source {
    /// From the workspace root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// Lines of code: comments are not there, strings are; numbered from 1.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let without =
            |line: &'_ str| -> usize { line.find("//").filter(|at| !in_string(&line[..*at])).unwrap_or(line.len()) };
        self.text.lines().enumerate().map(move |(index, line)| (index + 1, &line[..without(line)]))
    }
}

/// Whether a text that begins outside of a string ends inside of one.
fn in_string(text: &str) -> bool {
    text.replace("\\\"", "").matches('"').count() % 2 == 1
}

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "corpus", "node_modules"];

/// Every Rust file.
pub(crate) fn rust() -> Vec<Source> {
    let mut all = texts();
    all.retain(|source| source.path.ends_with(".rs"));
    all
}

/// Every text file.
pub(crate) fn texts() -> Vec<Source> {
    let mut found = Vec::new();
    walk(root(), root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One file, empty when it is not there.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// A source for the tests of the judges.
#[cfg(test)]
pub(crate) fn sample(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}
