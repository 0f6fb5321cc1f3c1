//! What an operator meets is documented: every configuration key, every metric.

use crate::sources::Source;

/// Complaints when the example file is not what the table of keys says.
pub(crate) fn keys(table: &str, file: &str) -> Vec<String> {
    let mut found: Vec<String> = table
        .lines()
        .filter(|line| !file.lines().any(|other| other == *line))
        .map(|line| format!("deploy/aorta.example.toml lacks: {line}"))
        .collect();
    if found.is_empty() && table != file {
        found.push(
            "deploy/aorta.example.toml is out of order: aorta config example > deploy/aorta.example.toml".to_owned(),
        );
    }
    found
}

/// Beginning of every metric's name.
const PREFIX: &str = "\"aorta_";

/// Metric names in `src/metrics.rs` that the document lacks, and names in the document that no source has.
pub(crate) fn metrics(sources: &[Source], document: &str) -> Vec<String> {
    let mut names = Vec::new();
    let rooms = sources.iter().filter(|source| source.path.starts_with("src/metrics"));
    for (_, code) in rooms.flat_map(Source::code) {
        for (at, _) in code.match_indices(PREFIX) {
            names.extend(code[at + 1..].split('"').next().map(str::to_owned));
        }
    }
    let documented: Vec<&str> = document
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| name.split('{').next().unwrap_or(name))
        .filter(|name| name.starts_with(&PREFIX[1..]))
        .collect();
    let lacks = names.iter().filter(|name| !documented.contains(&name.as_str()));
    let mut found: Vec<String> = lacks.map(|name| format!("deploy/metrics.md lacks {name}")).collect();
    let stale = documented.iter().filter(|name| !names.iter().any(|known| known == *name));
    found.extend(stale.map(|name| format!("deploy/metrics.md names {name}, which is no metric")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    #[test]
    fn a_missing_key_is_seen() {
        assert_eq!(keys("a = 1\nb = 2\n", "a = 1\n").len(), 1);
        assert_eq!(keys("a = 1\nb = 2\n", "b = 2\na = 1\n").len(), 1);
        assert_eq!(keys("a = 1\n", "a = 1\n").len(), 0);
    }

    #[test]
    fn an_undocumented_and_a_stale_metric_are_seen() {
        let source = sample("src/metrics.rs", "pub const X: &str = \"aorta_x_total\";");
        assert_eq!(metrics(&[source], "| `aorta_y_total` |").len(), 2);
        let source = sample("src/metrics.rs", "pub const X: &str = \"aorta_x_total\";");
        assert_eq!(metrics(&[source], "| `aorta_x_total{reason}` |").len(), 0);
    }
}
