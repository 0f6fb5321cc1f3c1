//! Register at one node and, at once after its 200, unregister at another whose wall clock is an hour behind.

use crate::cluster::{Cluster, SOON, figure, program};
use aorta_phones::Household;
use aorta_phones::judges::{Elsewhere, register_then_unregister_elsewhere};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's libfaketime, by architecture.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_elsewhere_wins_with_a_clock_an_hour_behind() {
    let Some(library) = LIBRARIES.iter().map(Path::new).find(|p| p.exists()) else {
        println!("SKIPPED: libfaketime is not installed");
        return;
    };
    let mut cluster = Cluster::laid_out(3, "");
    let behind = wrapper(cluster.folder.path(), library, "-1h");
    cluster.run_by(1, &behind);
    cluster.start_all();
    cluster.agree(SOON);
    let nodes = cluster.sips(3);
    let plan = Elsewhere { count: figure(2000, 4000), in_flight: 64, first: nodes[0], second: nodes[1] };
    for (seed, plan) in [(51, plan), (52, Elsewhere { first: plan.second, second: plan.first, ..plan })] {
        let household = Household { domain: format!("d{seed}.test"), ..Household::new(seed) };
        let report = register_then_unregister_elsewhere(&household, plan, &nodes).await.expect("sockets");
        println!("{}; from 200 to removal {:?}; {}", report.stats, report.gap, report.mismatches);
        assert_eq!((report.listed, report.removed, report.left), (plan.count, plan.count, 0), "{}", report.mismatches);
        // A busy machine may take a few of them off the processor in between.
        assert!(report.gap.quantile(0.99) < Duration::from_millis(1), "from 200 to removal {:?}", report.gap);
    }
    cluster.agree(Duration::from_secs(5));
}

/// A program that runs `aorta` with another wall clock.
fn wrapper(folder: &Path, library: &Path, offset: &str) -> PathBuf {
    let script = folder.join("behind.sh");
    let text = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1\nexec {} \"$@\"\n",
        library.display(),
        program().display()
    );
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    script
}
