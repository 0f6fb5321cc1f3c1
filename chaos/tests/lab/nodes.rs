//! Real nodes in a lab, and their processes.

use aorta::admin::MemberView;
use aorta_chaos::lab::{End, Lab, LinkProfile, NodePlan, Signal};

use crate::{SOON, await_state, ready, three_nodes};

/// How many others a node shows alive, and linked.
fn others(lab: &Lab, node: usize) -> (usize, usize) {
    let Some(view) = lab.views()[node].take() else { return (0, 0) };
    let count = |is: fn(&MemberView) -> bool| view.members.iter().filter(|member| is(member)).count();
    (count(|member| member.present), count(|member| member.linked))
}

fn all_linked(lab: &Lab) -> bool {
    let others_of_each = lab.present().len() - 1;
    lab.present().into_iter().all(|node| others(lab, node) == (others_of_each, others_of_each))
}

#[test]
fn a_node_that_is_cut_off_is_dropped_and_comes_back() {
    let Some((lab, _folder)) = three_nodes(11, "", |_| NodePlan::default()) else { return };
    await_state("all linked", || all_linked(&lab));
    let network = lab.network().expect("links");
    network.set_around(End::Node(2), &LinkProfile::CUT, false);
    let dropped = await_state("gossip drops it", || (0..2).all(|node| others(&lab, node).0 == 1));
    let unlinked =
        dropped + await_state("its links end", || (0..3).all(|node| others(&lab, node).1 == [1, 1, 0][node]));
    network.heal();
    let healed = await_state("all linked again", || all_linked(&lab));
    println!("dropped after {dropped:?}, unlinked after {unlinked:?}, linked again {healed:?} after the heal");
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
    await_state("all linked", || all_linked(&lab));
}
