//! The proofs of the merge law name their tests: what `proto/README.md` says is checked exists, and is all there is.

use std::collections::BTreeSet;

use crate::sources::Source;

/// What begins a list of tests in the document; it ends with the paragraph.
const CHECKED_BY: &str = "*Checked by*";

/// Where each test must be named, for each is there to check a claim.
const LAW: &str = "proto/tests/law/";

/// Complaints when a test or mutant that the document names does not exist, or a law is tested that it does not claim.
pub(crate) fn judge(document: &str, sources: &[Source]) -> Vec<String> {
    let named: BTreeSet<&str> = named(document).collect();
    if named.is_empty() {
        return vec![format!("proto/README.md: nothing is '{CHECKED_BY}' anything")];
    }
    let tests: BTreeSet<&str> = sources.iter().flat_map(|source| tests(&source.text)).collect();
    let mutants: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path == "proto/src/mutant.rs")
        .flat_map(|source| quoted(&source.text))
        .collect();
    let exists = |name: &&&str| tests.contains(**name) || mutants.contains(**name);
    let missing = named.iter().filter(|name| !exists(name));
    let mut found: Vec<String> = missing.map(|name| format!("proto/README.md: there is no test {name}")).collect();
    let laws = sources.iter().filter(|source| source.path.starts_with(LAW)).flat_map(tests_of);
    let unclaimed = laws.filter(|(_, name)| !named.contains(name));
    found.extend(unclaimed.map(|(path, name)| format!("{path}: proto/README.md claims nothing that {name} checks")));
    found
}

/// The names in the paragraphs that begin with [`CHECKED_BY`].
fn named(document: &str) -> impl Iterator<Item = &str> {
    let lists = document.split(CHECKED_BY).skip(1).filter_map(|rest| rest.split("\n\n").next());
    lists.flat_map(|list| list.split('`').skip(1).step_by(2))
}

fn tests_of(source: &Source) -> impl Iterator<Item = (&str, &str)> {
    tests(&source.text).map(|name| (source.path.as_str(), name))
}

/// The names of the functions that `#[test]` stands above.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]").skip(1).filter_map(|rest| {
        let (_, rest) = rest.split_once("fn ")?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    #[test]
    fn a_name_without_a_test_and_a_law_without_a_claim_are_seen() {
        let law = sample("proto/tests/law/merge.rs", "#[test]\nfn it_rises() {}\n#[test]\nfn it_sinks() {}\n");
        let mutant = sample("proto/src/mutant.rs", "(\"it-falls\", Mutant::ItFalls),");
        let both = [law, mutant];
        assert_eq!(
            judge("It rises.\n\n*Checked by* `it_rises`,\n`it_sinks`; `it-falls`.\n\nSee `Record`.", &both),
            [""; 0]
        );
        let found = judge("*Checked by* `it_rises`, `it_jumps`, `it-flies`.", &both);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(judge("It rises, see `it_rises`.", &both).len(), 1);
    }
}
