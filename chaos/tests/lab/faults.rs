//! Clocks and disks that are wrong, clones, floods, and a lab without namespaces.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aorta_chaos::lab::{Damage, End, FloodPlan, Floods, Lab, LabPlan, NodePlan, NotHere};

use crate::{SOON, await_state, program, ready, three_nodes};

/// Registers a phone at a node, waiting until it serves; the 200.
fn registered(lab: &Lab, node: usize, user: &str) -> String {
    static CSEQ: AtomicU32 = AtomicU32::new(1);
    let mut answer = String::new();
    await_state("a 200", || {
        answer = registers(lab, node, user, CSEQ.fetch_add(1, Ordering::Relaxed));
        answer.starts_with("SIP/2.0 200")
    });
    answer
}

/// Sends a REGISTER; the answer, empty if none comes.
fn registers(lab: &Lab, node: usize, user: &str, cseq: u32) -> String {
    let socket = lab.phones().enter(|| UdpSocket::bind((lab.phones().address(), 0)).expect("a socket"));
    let socket = socket.expect("inside");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    let (host, own) = (lab.sip(node), socket.local_addr().expect("bound"));
    let request = format!(
        "REGISTER sip:lab.test SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{user}{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:{user}@lab.test>;tag=1\r\nTo: <sip:{user}@lab.test>\r\nCall-ID: {user}\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:{user}@192.0.2.1>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(request.as_bytes(), host).expect("sent");
    let mut answer = [0; 2000];
    let length = socket.recv(&mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// The hour and minute of the Date header, in minutes of the day.
fn minutes(answer: &str) -> i64 {
    let date = answer.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap_or_else(|| panic!("{answer}"));
    let time: Vec<i64> = date.split(' ').nth(4).expect("a time").split(':').filter_map(|n| n.parse().ok()).collect();
    time[0] * 60 + time[1]
}

/// How far the clock of node 1 is ahead of that of node 0, minutes, over midnight too.
fn ahead(lab: &Lab) -> i64 {
    let clocks = [0, 1].map(|node| minutes(&registered(lab, node, "clock")));
    (clocks[1] - clocks[0] + 12 * 60).rem_euclid(24 * 60) - 12 * 60
}

#[test]
fn a_wall_clock_is_wrong_and_jumps_while_the_node_runs_and_cluster_time_does_not() {
    let wrong = |node| NodePlan { clock_offset_s: (node == 1).then_some(-3600), ..NodePlan::default() };
    let Some((lab, _folder)) = three_nodes(21, "", wrong) else { return };
    let time =
        |node: usize| lab.at(node, |client| client.cluster()).expect("inside").expect("an answer").cluster_time_us;
    let before = time(1);
    for (by_s, range) in [(0, -61..=-59), (7200, 59..=61), (-7200, -61..=-59)] {
        lab.jump_clock(1, by_s).expect("it jumps");
        await_state("the jump", || range.contains(&ahead(&lab)));
    }
    assert!(time(1) - before < 120_000_000, "two minutes is more than this takes, and less than any jump");
    assert!(time(1).abs_diff(time(0)) < 60_000_000, "both have one cluster time");
    ready(&lab, 1);
    assert!(lab.jump_clock(0, 1).is_err(), "it has no clock of its own");
}

#[test]
fn a_disk_is_full_and_has_space_again() {
    let limited = |node| NodePlan { disk_bytes: (node == 1).then_some(64 << 20), ..NodePlan::default() };
    let Some((lab, _folder)) = three_nodes(22, "snapshot_interval_ms = 100", limited) else { return };
    let failed = |lab: &Lab| lab.sample(1).metric("aorta_snapshot_failed_total", "");
    lab.fill_disk(1).expect("filled");
    let mut users = 0..;
    // It serves all the same; what has been given to its log already takes some hundred contacts.
    await_state("a failed snapshot", || {
        users.by_ref().take(100).for_each(|user| drop(registered(&lab, 1, &format!("full{user}"))));
        failed(&lab) > 0.5
    });
    lab.free_disk(1).expect("freed");
    let dirty = |lab: &Lab| lab.at(1, |client| client.metric("aorta_records_dirty", "")).expect("inside");
    await_state("all written", || dirty(&lab).is_ok_and(|records| records < 0.5));
    assert!(lab.fill_disk(0).is_err(), "it has no disk of its own");
    assert!(std::fs::read_dir(lab.place(1).folder.join("disk")).is_ok_and(|mut files| files.next().is_none()));
}

#[test]
fn a_disk_is_damaged_replaced_and_lost_while_the_node_is_down() {
    let Some((lab, _folder)) = three_nodes(23, "snapshot_interval_ms = 50", |_| NodePlan::default()) else { return };
    registered(&lab, 1, "disk");
    assert!(lab.damage_disk(1, Damage::CutLog).is_err(), "it runs");
    let contacts = |lab: &Lab| lab.views()[1].as_ref().map_or(0, |view| view.contacts);
    let saved = || lab.at(1, |client| client.metric("aorta_snapshot_records_total", "")).expect("inside");
    await_state("a snapshot", || saved().is_ok_and(|records| records > 0.5));
    lab.kill(1).expect("killed");
    let copy = lab.copy_disk(1).expect("copied");
    let comes_back = || {
        lab.start(1).expect("started");
        ready(&lab, 1);
        await_state("the contact", || contacts(&lab) == 1);
        lab.kill(1).expect("killed");
    };
    let damage = |damage| println!("{}", lab.damage_disk(1, damage).expect("damaged"));
    damage(Damage::FlipBytes { count: 50, seed: 1 });
    comes_back();
    damage(Damage::CutLog);
    comes_back();
    lab.restore_disk(1, Some(&copy)).expect("replaced");
    comes_back();
    damage(Damage::CutSnapshot);
    comes_back();
    lab.restore_disk(1, None).expect("emptied");
    comes_back();
}

#[test]
fn a_clone_is_refused_and_says_so() {
    let Some((lab, _folder)) = three_nodes(24, "", |_| NodePlan::default()) else { return };
    let clone = lab.add(NodePlan { twin_of: Some(0), ..NodePlan::default() }).expect("a clone");
    lab.start(clone).expect("started");
    let words = |lab: &Lab| std::fs::read_to_string(lab.place(clone).log).unwrap_or_default();
    await_state("it is called a twin", || words(&lab).contains("twin") || lab.last_words(clone).contains("twin"));
    (0..3).for_each(|node| ready(&lab, node));
    lab.remove(clone).expect("removed");
    assert_eq!(lab.present(), [0, 1, 2]);
}

#[test]
fn a_peer_that_floods_is_borne_or_closed() {
    let Some((lab, _folder)) = three_nodes(25, "", |_| NodePlan::default()) else { return };
    for (number, says) in [Floods::Deltas, Floods::Digests, Floods::Garbage].into_iter().enumerate() {
        let flood = lab.flood(FloodPlan { node: 1, says, frames_s: None, seed: 1 }).expect("it links");
        await_state("many frames", || flood.report().frames > 1000 && flood.report().links > 0);
        if says == Floods::Garbage {
            await_state("closed", || flood.report().closed > 1);
        }
        for node in 0..3 {
            registered(&lab, node, "flood");
        }
        assert!(lab.network().expect("links").traffic(End::Peer(number), End::Node(1)).packets > 10);
        let report = flood.stop().expect("it went on");
        println!("{says:?}: {report:?}");
        // A starved machine may lose a link; what is valid is never closed for what it says.
        assert!(says == Floods::Garbage || report.closed <= 1, "{report:?}");
    }
    let network = lab.network().expect("links");
    await_state("they are unplugged", || network.ends().iter().all(|end| !matches!(end, End::Peer(_))));
    (0..3).for_each(|node| ready(&lab, node));
}

#[test]
fn a_lab_on_loopback_has_all_but_links() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let plan = LabPlan { seed: 26, folder: folder.path().to_owned(), program, extra: String::new() };
    let lab = Lab::on_loopback(plan).expect("a lab");
    for _ in 0..3 {
        lab.add(NodePlan::default()).expect("a node");
    }
    (0..3).for_each(|node| lab.start(node).expect("started"));
    (0..3).for_each(|node| ready(&lab, node));
    registered(&lab, 2, "here");
    await_state("all have it", || lab.views().iter().flatten().filter(|view| view.contacts == 1).count() == 3);
    assert!(lab.network().is_err());
    let flood =
        lab.flood(FloodPlan { node: 0, says: Floods::Deltas, frames_s: Some(1000), seed: 1 }).expect("it links");
    await_state("some frames", || flood.report().frames > 200);
    let report = flood.stop().expect("it went on");
    println!("{report:?}");
    let refused = lab.add(NodePlan { disk_bytes: Some(1 << 20), ..NodePlan::default() }).expect_err("no mounts here");
    assert!(refused.is::<NotHere>(), "{refused:#}");
    lab.kill(2).expect("killed");
    lab.start(2).expect("started");
    assert!(lab.ready(2, SOON).is_ok());
}
