//! A scenario with real nodes, as the command line runs it: it passes with good nodes, and its report holds what it should.
//! Nodes that do not replicate must fail it: `tests/run broken` gives them to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use aorta_chaos::lab::{Lab, LabPlan, NotHere};
use aorta_chaos::run::report::Report;
use aorta_chaos::run::verdict::Verdict;

/// The node program: the one beside the judges', or the one that `AORTA_PROGRAM` names.
fn program(judges: &Path) -> PathBuf {
    std::env::var_os("AORTA_PROGRAM").map_or_else(|| judges.with_file_name("aorta"), PathBuf::from)
}

/// Why this machine has no labs; `None` where it has.
fn why_not(folder: &Path, program: &Path) -> Option<String> {
    let plan = LabPlan { seed: 1, folder: folder.join("try"), program: program.to_path_buf(), extra: String::new() };
    let error = Lab::new(plan).err()?;
    Some(error.downcast_ref::<NotHere>().map_or_else(|| format!("{error:#}"), ToString::to_string))
}

#[test]
fn a_cluster_that_loses_one_node_after_the_other_passes() {
    let judges = Path::new(env!("CARGO_BIN_EXE_aorta-chaos"));
    let folder = tempfile::tempdir().expect("a folder");
    let program = program(judges);
    if !program.exists() {
        println!("SKIPPED: {} is not built", program.display());
        return;
    }
    if let Some(why) = why_not(folder.path(), &program) {
        println!("SKIPPED: {why}");
        return;
    }
    let out = folder.path().join("out");
    let mut run = Command::new(judges);
    let output = run.args(["run", "kill-one", "--program"]).arg(&program).arg("--out").arg(&out).output();
    let output = output.expect("the judges run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let json = std::fs::read_to_string(out.join("report.json")).expect("a report");
    let report: Report = serde_json::from_str(&json).expect("sound JSON");
    let [run] = report.runs.as_slice() else { panic!("one run, not {}", report.runs.len()) };
    assert_eq!(run.verdict, Verdict::Passed);
    let story = &run.story;
    assert_eq!(story.bands.len(), 3);
    assert!(story.totals.full > 20_000 && story.totals.calls_completed > 1_000, "{:?}", story.totals);
    assert!(story.samples.iter().any(|sample| sample.ready == 2), "nobody was ever missing");
    assert!(story.bands.iter().all(|band| band.suspect_s.is_some() && band.dropped_s.is_some()), "{:?}", story.bands);
    let picture = std::fs::read_to_string(out.join("kill-one/timeline.svg")).expect("a picture");
    for node in ["node1", "node2", "node3"] {
        assert!(picture.contains(&format!("kill -9 {node}")), "the picture lacks {node}");
    }
    let table = std::fs::read_to_string(out.join("report.md")).expect("a table");
    assert!(table.contains("| kill-one | passed |"), "{table}");
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_starts() {
    let judges = env!("CARGO_BIN_EXE_aorta-chaos");
    let unknown = Command::new(judges).args(["run", "kil-one"]).output().expect("the judges run");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("did you mean kill-one?"), "{said}");
    let missing = Command::new(judges).args(["run", "kill-one", "--program", "no-such-file"]).output();
    let missing = missing.expect("the judges run");
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && said.contains("--program no-such-file is not there"), "{said}");
    let list = Command::new(judges).args(["run", "--list"]).output().expect("the judges run");
    assert!(list.status.success() && String::from_utf8_lossy(&list.stdout).lines().count() >= 22);
}
