//! Deliberate faults in the nodes, and that the simulator finds them. Needs the feature `mutants`; without it there is
//! nothing here.
#![cfg(feature = "mutants")]

use aorta_chaos::sim;

/// Each but the rare ones is found within so many seeds; `aorta-chaos sim --mutant all` says after how many.
const SEEDS: u64 = 400;

/// Not found in each so few seeds: what they break shows only where two rare things meet, or for a moment in which nothing
/// is judged. `chaos/README.md` says what is known of each.
const RARE: &[&str] = &[
    "digest-without-cleared",
    "forgets-living",
    "merged-lifetimes-ignored",
    "stamps-move-no-clock",
    "two-begin-unawaited",
    "fenced-called-full",
    "ready-on-old-exchange",
    "meeting-without-repair",
    "mark-before-backlog",
    "old-view-trusted",
    "repair-one-way",
];

/// Found after many seeds, or long ones: hunted from the seed that found it last, so that all takes minutes. Whoever changes
/// what a seed does may have to look for others (`aorta-chaos sim --mutant NAME`).
const FAR: &[(&str, u64)] = &[
    ("cleared-without-cseq", 37),
    ("lapsed-skipped-at-load", 53),
    ("horizon-of-its-own", 62),
    ("trail-only-when-left", 77),
    ("merge-by-cseq", 142),
    ("old-states-trusted", 170),
    ("silent-lifetimes-forgotten", 229),
];

#[test]
fn mutants_that_take_long_are_found_where_they_were() {
    let missed: Vec<&str> = FAR
        .iter()
        .filter(|(name, seed)| sim::hunt(name, *seed, SEEDS).caught.is_none())
        .map(|(name, _)| *name)
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn every_mutant_is_found() {
    let far = |name: &str| FAR.iter().any(|(far, _)| *far == name);
    let names: Vec<&str> = sim::names().into_iter().filter(|name| !RARE.contains(name) && !far(name)).collect();
    assert!(!names.is_empty());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hunted = sim::survey(&names, &[1], SEEDS, threads, |hunted| println!("{} {:?}", hunted.name, hunted.after));
    let missed: Vec<&str> = hunted.iter().filter(|hunted| !hunted.always()).map(|hunted| hunted.name).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
    let failed: Vec<&u64> = hunted.iter().flat_map(|hunted| &hunted.failed_without).collect();
    assert!(failed.is_empty(), "these seeds fail without any mutant: {failed:?}");
}

#[test]
fn a_failing_run_is_cut_down_and_its_file_replays() {
    let caught = sim::hunt("star-of-known-only", 1, SEEDS).caught.expect("found");
    let small = sim::shrink(&caught.plan);
    let requests = small.only.as_ref().map_or(usize::MAX, std::collections::BTreeSet::len);
    assert!(small.steps.len() <= caught.plan.steps.len() && requests < 100, "{requests} requests");
    let file = serde_json::to_string(&small).expect("JSON");
    let replayed: sim::Plan = serde_json::from_str(&file).expect("the same");
    let (once, again) = (sim::run_plan(&replayed, true), sim::run_plan(&small, true));
    assert!(once.failure.is_some());
    assert_eq!(once, again);
}
