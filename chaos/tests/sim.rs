//! The simulator's first seeds, and that a seed is a run.

use aorta_chaos::sim;

/// Seeds that every build runs; `aorta-chaos sim --seeds N` runs more.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2000;

#[test]
fn what_was_promised_holds_in_the_first_seeds() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..threads)
            .map(|lane| {
                let seeds = SEEDS.filter(move |seed| seed % threads == lane);
                scope.spawn(move || {
                    let outcomes = seeds.map(|seed| sim::run(seed, false));
                    let failed =
                        outcomes.filter_map(|outcome| Some(format!("seed {}: {}", outcome.seed, outcome.failure?)));
                    failed.collect::<Vec<_>>()
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (once, again) = (sim::run(7, true), sim::run(7, true));
    assert!(once.figures.requests > 100 && once.figures.exchanges > 5, "something happened: {:?}", once.figures);
    assert_eq!(once, again);
    assert_ne!(once.figures.trace, sim::run(8, false).figures.trace);
}

/// Runs that once failed, cut down; each is named after what went wrong.
#[test]
fn what_once_failed_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replays");
    let files: Vec<_> = folder.read_dir().expect("a folder").map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let plan: sim::Plan = serde_json::from_str(&text).expect("an event file");
        let outcome = sim::run_plan(&plan, false);
        assert_eq!(outcome.failure, None, "{}", file.display());
        assert!(outcome.figures.requests > 10, "something happened in {}", file.display());
    }
}
