//! Taste that a machine can count: floors, homes of foreign crates, sizes, names, and that every key, every metric
//! and the test of every proof is documented. It judges text, not behaviour.

mod documents;
mod floors;
mod names;
mod proofs;
mod sizes;
mod sources;

use sources::{Source, rust, texts};

/// Prints every complaint and fails when there is one.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n{} complaints", complaints.join("\n"), complaints.len());
}

fn each(sources: &[Source], judge: impl Fn(&Source) -> Vec<String>) {
    assert!(sources.len() > 10, "the sources were not found");
    none(sources.iter().flat_map(judge).collect());
}

#[test]
fn a_room_imports_only_from_floors_below_it() {
    each(&rust(), floors::climbs);
}

#[test]
fn every_room_has_a_floor() {
    each(&rust(), floors::homeless);
}

#[test]
fn a_foreign_crate_has_one_home() {
    each(&rust(), floors::strays);
}

#[test]
fn pure_rooms_ask_no_clock_socket_or_disk() {
    each(&rust(), floors::impure);
}

#[test]
fn crates_that_judge_or_agree_depend_on_nothing_they_must_not() {
    none(floors::dependencies(&texts()));
}

#[test]
fn nothing_is_unbounded_and_only_the_clock_reads_the_wall_clock() {
    each(&rust(), floors::forbidden);
}

#[test]
fn files_and_functions_are_small_and_flat() {
    each(&rust(), sizes::judge);
}

#[test]
fn a_file_says_first_what_it_is() {
    each(&rust(), names::first_line);
}

#[test]
fn names_mean_something_and_nothing_is_silenced_without_a_reason() {
    each(&rust(), names::judge);
}

#[test]
fn nothing_names_a_machine() {
    each(&texts(), names::machine);
}

#[test]
fn every_key_stands_in_the_example() {
    none(documents::keys(&aorta::config::example(), &sources::read("deploy/aorta.example.toml")));
}

#[test]
fn every_metric_is_documented() {
    none(documents::metrics(aorta::metrics::catalogue::ALL, &sources::read("deploy/metrics.md")));
}

#[test]
fn the_proofs_name_tests_that_exist() {
    none(proofs::judge(&sources::read("proto/README.md"), &rust()));
}
