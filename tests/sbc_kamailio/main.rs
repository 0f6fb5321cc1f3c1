//! A real SBC in front of real nodes: Kamailio with `deploy/sbc/kamailio.cfg`, sipp as phones and callers. The phones'
//! Contacts lead nowhere (192.0.2.0/24); only the Path that the SBC adds does, through `?Route=` in the nodes' 302.

mod bench;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use aorta_phones::{Crowd, CrowdPlan};
use bench::{Bench, NODE_TIMEOUT, tools_are_here, until};

/// The slack that a call's set-up has above the SBC's own timer.
const SLACK: Duration = Duration::from_millis(500);

#[test]
fn calls_survive_the_death_and_the_return_of_a_node() {
    const CALLS: u64 = 1200;
    if !tools_are_here() {
        return;
    }
    let mut bench = Bench::start("");
    bench.register_phones(200);
    let _phones = bench.phones();
    let calls = bench.calls(200, 1200, 20);
    let minute = Duration::from_secs(60);
    let seen = |bench: &Bench| (0..3).map(|node| bench.invites(node)).sum::<u64>();

    until("a quarter of the calls is made", minute, || seen(&bench) >= CALLS / 4);
    bench.fleet.kill(1).expect("a node dies");
    until("the SBC has taken it out", minute, || !bench.nodes_in_use()[1]);
    let before = seen(&bench);
    until("a quarter of the calls is made without it", minute, || seen(&bench) >= before + CALLS / 4);
    bench.fleet.start(1).expect("it starts again");
    let ready = bench.fleet.wait_ready(1, minute).expect("it is ready again");
    let again = until("it is asked again", Duration::from_secs(10), || bench.invites(1) > 0);

    let measured = calls.all_succeed();
    println!("ready after {ready:?}, asked after {again:?}; longest set-up {:?}", measured.longest);
    assert_eq!(measured.answers, 1200);
    assert!(measured.longest <= NODE_TIMEOUT + SLACK, "longest set-up {:?}", measured.longest);
}

#[test]
fn a_drained_node_is_missed_by_nobody() {
    if !tools_are_here() {
        return;
    }
    let mut bench = Bench::start("drain_grace_s = 4\n");
    bench.register_phones(200);
    let _phones = bench.phones();
    let calls = bench.calls(200, 50 * 15, 50);
    let registrations = bench.registrations(450 * 15, 450);

    let minute = Duration::from_secs(60);
    until("the load runs", minute, || bench.invites(0) > 50);
    bench.fleet.nodes()[0].client().post("/v1/drain").expect("it drains");
    until("the SBC has taken it out", Duration::from_secs(4), || !bench.nodes_in_use()[0]);
    let status = bench.fleet.wait_ended(0, minute).expect("it leaves");
    assert_eq!(status.code(), Some(0), "nothing was lost");
    assert_eq!(bench.nodes_in_use(), [false, true, true]);

    let (calls, registrations) = (calls.all_succeed(), registrations.all_succeed());
    assert_eq!((calls.answers, registrations.answers), (50 * 15, 450 * 15));
    assert_eq!((calls.retransmissions, registrations.retransmissions), (0, 0), "no request timed out");
    let longest = calls.longest.max(registrations.longest);
    assert!(longest < NODE_TIMEOUT, "longest answer {longest:?}");
}

#[test]
fn a_crowd_that_remembers_is_called_through_it() {
    if !tools_are_here() {
        return;
    }
    let bench = Bench::start("expires_min_s = 1\n");
    let nodes: Vec<SocketAddr> = bench.fleet.nodes().iter().map(|node| node.place.sip).collect();
    let mut plan = CrowdPlan::new(500, 3);
    (plan.per_second, plan.calls_per_second, plan.via) = (200, 50, Some(bench.sbc_address()));
    (plan.short_lived_percent, plan.short_expires_s) = (10, 2);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let crowd = runtime.block_on(async {
        let mut crowd = Crowd::new(plan).await.expect("a crowd");
        crowd.fill(&nodes).await.expect("sockets");
        let running = crowd.start(&nodes).await.expect("sockets");
        until("it has called", Duration::from_secs(60), || running.tally().calls > 400);
        running.stop().await.expect("sockets")
    });
    let tally = crowd.tally();
    assert_eq!(tally.calls_completed, tally.calls, "{:?} {:?}", tally.calls_failed, tally.wrong);
    assert_eq!((tally.lost.count, tally.ghosts.count, tally.wrong.count), (0, 0, 0), "{tally:?}");
    assert!(tally.setup.count() > 200, "{tally:?}");
    let edge = crowd.edge();
    assert!(edge.answered() >= tally.setup.count() && edge.acked() > 200, "{} {}", edge.answered(), edge.acked());
    assert!(edge.complaints().is_empty(), "{:?}", edge.complaints());
}

#[test]
fn kamailio_takes_the_configuration_as_it_is_shipped() {
    if !tools_are_here() {
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sbc");
    for more in [None, Some("PEER_SBCS=\"^192\\.0\\.2\\.(11|12)$\"")] {
        let mut check = Command::new("kamailio");
        check.args(["-c", "-f", &format!("{folder}/kamailio.cfg")]);
        check.args(["-A", &format!("NODES_FILE=\"{folder}/dispatcher.list\"")]);
        check.args(more.iter().flat_map(|define| ["-A", define]));
        let output = check.output().expect("kamailio runs");
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
