//! The laboratory itself: links do to packets what they were told, and real nodes live in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aorta_chaos::lab::{End, Lab, LabPlan, LinkProfile, NodePlan, NotHere};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// The program that nodes run: beside this test's folder.
fn program() -> Option<PathBuf> {
    let here = std::env::current_exe().expect("this test's own file");
    let beside = here.ancestors().nth(2).map(|folder| folder.join("aorta"));
    beside.filter(|program| program.exists())
}

/// A lab, or `None` with a word where it cannot be.
fn lab(seed: u64, extra: &str) -> Option<(Lab, TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    let program = program().unwrap_or_default();
    let plan = LabPlan { seed, folder: folder.path().to_owned(), program, extra: extra.to_owned() };
    match Lab::new(plan) {
        Ok(lab) => Some((lab, folder)),
        Err(why) if why.is::<NotHere>() => {
            println!("SKIPPED: {why:#}");
            None
        }
        Err(why) => panic!("{why:#}"),
    }
}

#[test]
fn three_nodes_become_ready_and_notice_a_cut() {
    let Some((lab, _folder)) = lab(1, "") else { return };
    if !Path::new(&program().unwrap_or_default()).exists() {
        println!("SKIPPED: the program is not built");
        return;
    }
    for _ in 0..3 {
        lab.add(NodePlan::default()).expect("a node");
    }
    for node in 0..3 {
        lab.start(node).expect("started");
    }
    for node in 0..3 {
        println!("{:?}", lab.ready(node, SOON).unwrap_or_else(|why| panic!("{why:#}")));
    }
    lab.network().expect("there").set_around(End::Node(2), &LinkProfile::CUT, false);
    let view = lab.at(0, |client| client.cluster()).expect("inside").expect("an answer");
    println!("{view:?}");
}
