//! Real nodes in a lab, and their processes.

use aorta_chaos::lab::{End, Lab, LinkProfile, NodePlan, Signal};

use crate::{SOON, await_state, ready, three_nodes};

/// Whom a node shows linked.
fn links(lab: &Lab, node: usize) -> usize {
    let view = lab.at(node, |client| client.cluster()).expect("inside");
    view.map(|view| view.members.iter().filter(|member| member.linked).count()).unwrap_or_default()
}

#[test]
fn a_node_that_is_cut_off_is_dropped_and_comes_back() {
    let Some((lab, _folder)) = three_nodes(11, "", |_| NodePlan::default()) else { return };
    await_state("all linked", || (0..3).all(|node| links(&lab, node) == 2));
    let network = lab.network().expect("links");
    network.set_around(End::Node(2), &LinkProfile::CUT, false);
    let dropped = await_state("the others drop it", || links(&lab, 0) == 1 && links(&lab, 1) == 1);
    await_state("it drops them", || links(&lab, 2) == 0);
    network.heal();
    let healed = await_state("all linked again", || (0..3).all(|node| links(&lab, node) == 2));
    println!("dropped after {dropped:?}, linked again {healed:?} after the heal");
    (0..3).for_each(|node| ready(&lab, node));
    assert!(network.bytes_between_nodes() > 10_000);
}

#[test]
fn processes_are_killed_stopped_drained_and_seen() {
    let Some((lab, _folder)) = three_nodes(12, "drain_grace_s = 0", |_| NodePlan::default()) else { return };
    await_state("a sample of each", || (0..3).all(|node| lab.sample(node).ready == Some(true)));
    await_state("its metrics", || lab.sample(0).metric("aorta_ready", "") > 0.5);
    let sample = lab.sample(0);
    assert!(sample.runs && sample.rss_bytes > 1_000_000, "{sample:?}");
    lab.signal(0, Signal::SIGSTOP).expect("stopped");
    await_state("silence", || lab.sample(0).runs && lab.sample(0).ready.is_none());
    lab.signal(0, Signal::SIGCONT).expect("continued");
    await_state("an answer", || lab.sample(0).ready == Some(true));
    lab.kill(1).expect("killed");
    assert!(!lab.runs(1));
    await_state("its absence", || !lab.sample(1).runs);
    lab.start(1).expect("started");
    ready(&lab, 1);
    assert!(lab.start(1).is_err(), "it runs already");
    lab.signal(2, Signal::SIGTERM).expect("told to drain");
    assert!(lab.ended(2, SOON).expect("it ends").success(), "{}", lab.last_words(2));
}

#[test]
fn nodes_may_come_later() {
    let Some((lab, _folder)) = three_nodes(13, "", |_| NodePlan::default()) else { return };
    let late = lab.add(NodePlan::default()).expect("a fourth");
    lab.start(late).expect("started");
    ready(&lab, late);
    await_state("all linked", || (0..4).all(|node| links(&lab, node) == 3));
}
