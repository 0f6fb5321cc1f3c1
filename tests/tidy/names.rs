//! Names that say nothing, silenced lints, first lines, and traces of somebody's machine.

use crate::sources::Source;

/// Names of files and modules that mean "I did not know where to put it".
const EMPTY: [&str; 10] =
    ["util", "utils", "helper", "helpers", "common", "manager", "managers", "handler", "handlers", "misc"];

/// Endings of type names that say no more.
const EMPTY_ENDINGS: [&str; 4] = ["Manager", "Helper", "Util", "Handler"];

/// Paths that exist on one machine only.
const MACHINE: [&str; 4] = ["/work/", "/home/", "/Users/", "/root/"];

/// Files begin with what they are.
pub(crate) fn first_line(source: &Source) -> Vec<String> {
    let said = source.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    if said { Vec::new() } else { vec![format!("{}:1: begins without '//! what it is'", source.path)] }
}

/// Names and silenced lints.
pub(crate) fn judge(source: &Source) -> Vec<String> {
    if source.path == "tests/tidy/names.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    let parts = source.path.trim_end_matches(".rs").split('/');
    found.extend(
        parts.filter(|part| EMPTY.contains(part)).map(|part| format!("{}: '{part}' says nothing", source.path)),
    );
    for (line, code) in source.code() {
        let declared =
            ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| code.trim_start().split_once(word));
        if let Some((before, name)) = declared
            && (before.is_empty() || before.starts_with("pub"))
        {
            let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(name);
            if EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                found.push(format!("{}:{line}: '{name}' says nothing", source.path));
            }
        }
        if (code.contains("#[allow(") || code.contains("#![allow(")) && !reasoned(source, line) {
            found.push(format!("{}:{line}: a lint is silenced without a reason", source.path));
        }
    }
    found
}

/// Whether the attribute that begins on this line holds `reason =`; it may span a few lines.
fn reasoned(source: &Source, line: usize) -> bool {
    let attribute = source.text.lines().skip(line - 1).take(6);
    attribute.take_while(|line| !line.trim_start().starts_with("fn ")).any(|line| line.contains("reason ="))
}

/// Paths of a machine, but here where they are listed.
pub(crate) fn machine(source: &Source) -> Vec<String> {
    if source.path == "tests/tidy/names.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let named = MACHINE.iter().filter(|path| line.contains(**path));
        found.extend(named.map(|path| format!("{}:{}: names {path}", source.path, index + 1)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    #[test]
    fn empty_names_are_seen() {
        assert_eq!(judge(&sample("src/sip/utils.rs", "")).len(), 1);
        assert_eq!(judge(&sample("src/sip/x.rs", "pub struct LinkManager {")).len(), 1);
        assert_eq!(judge(&sample("src/sip/x.rs", "struct Handle;")).len(), 0);
    }

    #[test]
    fn silence_without_a_reason_is_seen() {
        assert_eq!(judge(&sample("src/x.rs", "#[allow(dead_code)]\nfn f() {}")).len(), 1);
        assert_eq!(judge(&sample("src/x.rs", "#[allow(dead_code, reason = \"why\")]\nfn f() {}")).len(), 0);
    }

    #[test]
    fn a_missing_first_line_and_a_machine_are_seen() {
        assert_eq!(first_line(&sample("src/x.rs", "use std::io;")).len(), 1);
        assert_eq!(first_line(&sample("src/x.rs", "//! What this file is.")).len(), 0);
        assert_eq!(machine(&sample("README.md", "see /home/me/x")).len(), 1);
    }
}
