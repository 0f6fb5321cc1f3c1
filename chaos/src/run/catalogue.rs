//! The scenarios that come with this program, in the order in which `all` runs them. It runs none.

use std::path::Path;

use anyhow::ensure;

use super::scenario::Scenario;

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),+]
    };
}

/// Name and text of each.
const FILES: &[(&str, &str)] = files![
    "kill-one",
    "kill-all-but-one",
    "kill-all",
    "kill-one-kamailio",
    "roll-kamailio",
    "join-empty",
    "stop-one",
    "cut-one",
    "cut-one-way",
    "cut-flapping",
    "cut-pair",
    "cut-from-phones",
    "loss",
    "loss-calm",
    "loss-ten-minutes",
    "delay",
    "delay-one",
    "reorder-duplicate",
    "thin-link",
    "clocks",
    "disk-full",
    "disk-damaged",
    "slow-donor",
    "donor-killed",
    "scale",
    "rolling-restart",
    "rolling-upgrade",
    "flood",
    "restart-storm",
    "burst",
    "chase",
    "large",
    "large-idle",
];

/// The scenarios that come along.
///
/// # Errors
/// When one of them is no scenario; a test sees to it that all are.
pub fn all() -> anyhow::Result<Vec<Scenario>> {
    FILES.iter().map(|(name, text)| Scenario::parse(name, text)).collect()
}

/// Those of these names, or in these files; `all` are all but the long ones.
///
/// # Errors
/// When one is unknown, or no scenario.
pub fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let known = all()?;
    let mut chosen = Vec::new();
    for name in names {
        if name == "all" {
            chosen.extend(known.iter().filter(|scenario| !scenario.long).cloned());
        } else if let Some(scenario) = known.iter().find(|scenario| scenario.name == *name) {
            chosen.push(scenario.clone());
        } else {
            ensure!(Path::new(name).exists(), unknown(name, &known));
            chosen.push(Scenario::read(Path::new(name))?);
        }
    }
    ensure!(!chosen.is_empty(), "no scenario was named; --list names them");
    Ok(chosen)
}

fn unknown(name: &str, known: &[Scenario]) -> String {
    let nearest = known.iter().min_by_key(|scenario| strsim::damerau_levenshtein(name, &scenario.name));
    let hint = nearest.map(|scenario| format!("; did you mean {}?", scenario.name)).unwrap_or_default();
    format!("there is no scenario and no file {name}{hint} --list names all")
}

/// Today, as 2026-11-21.
#[must_use]
pub fn today() -> String {
    let seconds = i64::try_from(aorta::clock::wall_us() / 1_000_000).unwrap_or_default();
    time::OffsetDateTime::from_unix_timestamp(seconds).map(|now| now.date().to_string()).unwrap_or_default()
}

/// Names and sentences, a line each.
///
/// # Errors
/// As [`all`].
pub fn list() -> anyhow::Result<String> {
    let line = |scenario: Scenario| {
        let long = if scenario.long { " (long: not in all)" } else { "" };
        format!("{:<24} {}{long}", scenario.name, scenario.about)
    };
    Ok(all()?.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_scenario_and_answers_are_complete() -> anyhow::Result<()> {
        let all = all()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        assert_eq!(std::fs::read_dir(folder)?.count(), all.len(), "a file that is not in the list");
        for row in 1..=9 {
            assert!(all.iter().any(|scenario| scenario.answers.contains(&row)), "nothing answers row {row}");
        }
        Ok(())
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let said = chosen(&["kil-one".into()]).expect_err("unknown").to_string();
        assert!(said.contains("kill-one"), "{said}");
    }

    #[test]
    fn today_is_a_date() {
        let today = today();
        assert!(today.len() == 10 && today.as_str() > "2026-01-01" && today.as_str() < "2100", "{today}");
    }
}
