//! What an operator meets is documented: every configuration key, every metric.

use aorta::metrics::{Kind, Metric};

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

/// Complaints when the document is not what the catalogue says: one row a metric, in its order.
pub(crate) fn metrics(catalogue: &[Metric], document: &str) -> Vec<String> {
    let rows: Vec<String> = catalogue.iter().map(row).collect();
    let documented: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    let lacks = rows.iter().filter(|row| !documented.contains(&row.as_str()));
    let mut found: Vec<String> = lacks.map(|row| format!("deploy/metrics.md lacks: {row}")).collect();
    let stale = documented.iter().filter(|line| !rows.iter().any(|row| row == *line));
    found.extend(stale.map(|line| format!("deploy/metrics.md has, but no metric is: {line}")));
    found
}

fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels.join(",")) };
    format!("| `{}{labels}` | {kind} | {} |", metric.name, metric.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_seen() {
        assert_eq!(keys("a = 1\nb = 2\n", "a = 1\n").len(), 1);
        assert_eq!(keys("a = 1\nb = 2\n", "b = 2\na = 1\n").len(), 1);
        assert_eq!(keys("a = 1\n", "a = 1\n").len(), 0);
    }

    #[test]
    fn an_undocumented_and_a_stale_metric_are_seen() {
        let metric = Metric { name: "aorta_x_total", kind: Kind::Counter, labels: &["why"], help: "X." };
        assert_eq!(metrics(&[metric], "| `aorta_y_total` | counter | Y. |").len(), 2);
        assert_eq!(metrics(&[metric], "| `aorta_x_total{why}` | counter | X. |").len(), 0);
    }
}
