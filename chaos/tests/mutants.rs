//! Deliberate faults in the nodes, and that the simulator finds them. Needs the feature `mutants`; without it there is
//! nothing here.
#![cfg(feature = "mutants")]

use aorta_chaos::sim;

/// Each but the rare ones is found within so many seeds; `aorta-chaos sim --mutant all` says after how many.
const SEEDS: u64 = 100;

/// Found too seldom for a test, or never: the simulator has to become better at them, or another rule covers them.
const RARE: [&str; 22] = [
    "cold-start-below-ceiling",
    "limit-by-last-refresh",
    "floor-lets-in",
    "floor-keeps-its-edge",
    "horizon-of-its-own",
    "trail-only-when-left",
    "ack-of-any-epoch",
    "empty-ack-set-is-full",
    "suspect-untold",
    "suspect-trusted-early",
    "suspect-for-ever",
    "nothing-sent-again",
    "overflow-unnoticed",
    "mark-before-backlog",
    "joiner-without-backlog",
    "mark-of-any-epoch",
    "ready-without-mark",
    "ready-unsubscribed",
    "ready-without-links",
    "gap-unnoticed",
    "meeting-without-repair",
    "lapsed-skipped-at-load",
];

#[test]
fn every_mutant_is_found() {
    let hunts: Vec<_> = std::thread::scope(|scope| {
        let hunts: Vec<_> = sim::names()
            .into_iter()
            .filter(|name| !RARE.contains(name))
            .map(|name| scope.spawn(move || (name, sim::hunt(name, 1, SEEDS))))
            .collect();
        hunts.into_iter().map(|hunt| hunt.join().expect("no panic")).collect()
    });
    assert!(!hunts.is_empty());
    let missed: Vec<&str> = hunts.iter().filter(|(_, caught)| caught.is_none()).map(|(name, _)| *name).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_failing_run_is_cut_down_and_its_file_replays() {
    let caught = sim::hunt("star-of-known-only", 1, SEEDS).expect("found");
    let small = sim::shrink(&caught.plan);
    let requests = small.only.as_ref().map_or(usize::MAX, std::collections::BTreeSet::len);
    assert!(small.steps.len() <= caught.plan.steps.len() && requests < 100, "{requests} requests");
    let file = serde_json::to_string(&small).expect("JSON");
    let replayed: sim::Plan = serde_json::from_str(&file).expect("the same");
    let (once, again) = (sim::run_plan(&replayed, true), sim::run_plan(&small, true));
    assert!(once.failure.is_some());
    assert_eq!(once, again);
}
