//! The laboratory itself: links do to packets what they were told, real nodes live in it, and each fault is one.

mod faults;
mod links;
mod nodes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aorta_chaos::lab::{Lab, LabPlan, NodePlan, NotHere};
use tempfile::TempDir;

/// Longest wait for what has nothing unusual to do.
const SOON: Duration = Duration::from_secs(20);

/// Time between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The program that nodes run: two folders above this test's own file.
fn program() -> Option<PathBuf> {
    let here = std::env::current_exe().expect("this test's own file");
    let beside = here.ancestors().nth(2).map(|folder| folder.join("aorta")).filter(|program| program.exists());
    if beside.is_none() {
        println!("SKIPPED: the program is not built");
    }
    beside
}

/// Nothing, and why, where a fault cannot be made.
fn allowed<T>(made: anyhow::Result<T>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(why) if why.is::<NotHere>() => {
            println!("SKIPPED: {why:#}");
            None
        }
        Err(why) => panic!("{why:#}"),
    }
}

/// A lab without nodes.
fn lab(seed: u64, program: PathBuf, extra: &str) -> Option<(Lab, TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = LabPlan { seed, folder: folder.path().to_owned(), program, extra: extra.to_owned() };
    Some((allowed(Lab::new(plan))?, folder))
}

/// A lab with three nodes that are ready.
fn three_nodes(seed: u64, extra: &str, plan: impl Fn(usize) -> NodePlan) -> Option<(Lab, TempDir)> {
    let (lab, folder) = lab(seed, program()?, extra)?;
    for node in 0..3 {
        allowed(lab.add(plan(node)))?;
    }
    (0..3).for_each(|node| lab.start(node).expect("started"));
    (0..3).for_each(|node| ready(&lab, node));
    Some((lab, folder))
}

fn ready(lab: &Lab, node: usize) {
    lab.ready(node, SOON).unwrap_or_else(|why| panic!("{why:#}"));
}

/// Waits until `state` holds, looking again and again; how long that took.
fn await_state(what: &str, mut state: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !state() {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
    begun.elapsed()
}
