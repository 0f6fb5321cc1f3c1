//! Three nodes, phones registered over all of them at full speed: every node answers for all, and all tables are equal.

use std::time::Instant;

use crate::cluster::{Cluster, SOON, clean, figure};
use aorta_phones::{Fleet, Household};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_for_every_phone() {
    let cluster = Cluster::started(3, "");
    let mut fleet = Fleet::new(Household::new(2), figure(10_000, 100_000));
    let nodes = cluster.sips(3);
    clean("register", &fleet.register(3600, &nodes).await.expect("sockets"));
    cluster.all_right(&mut fleet, &nodes).await;
    cluster.agree(SOON);
    let begun = Instant::now();
    let dumps: Vec<Vec<String>> = (0..3).map(|n| cluster.dump(n)).collect();
    // One after the other; each cuts its seconds off.
    let apart_s = begun.elapsed().as_secs() + 1;
    assert_eq!(dumps[0].len(), fleet.live_contacts().max(fleet.len()).min(dumps[0].len()));
    for other in &dumps[1..] {
        assert_eq!(dumps[0].len(), other.len());
        for (a, b) in dumps[0].iter().zip(other) {
            assert!(equal_within(a, b, apart_s), "\n{a}\n{b}");
        }
    }
    // What the phones refresh and remove is as equal.
    clean("refresh", &fleet.register(3600, &nodes).await.expect("sockets"));
    let gone = fleet.len() / 3;
    let shared = std::sync::Arc::new(aorta_phones::Nodes::new(&nodes).expect("nodes"));
    let report = fleet.turn(aorta_phones::Turn::Unregister, 0..gone, &shared).await.expect("sockets");
    clean("unregister", &report);
    let report = fleet.turn(aorta_phones::Turn::Clear, gone..gone + 500, &shared).await.expect("sockets");
    clean("clear", &report);
    cluster.all_right(&mut fleet, &nodes).await;
    cluster.agree(SOON);
}

/// Two lines of a dump, equal in bytes apart from the digits of a remaining time that differs by so many seconds at most.
fn equal_within(a: &str, b: &str, apart_s: u64) -> bool {
    let (mut a, mut b) = (a, b);
    loop {
        let Some((before_a, rest_a)) = a.split_once("\"remaining") else { return a == b };
        let Some((before_b, rest_b)) = b.split_once("\"remaining") else { return false };
        let (Some((name_a, rest_a)), Some((name_b, rest_b))) = (rest_a.split_once(':'), rest_b.split_once(':')) else {
            return false;
        };
        let (seconds_a, left_a) = number(rest_a);
        let (seconds_b, left_b) = number(rest_b);
        if before_a != before_b || name_a != name_b || seconds_a.abs_diff(seconds_b) > apart_s {
            return false;
        }
        (a, b) = (left_a, left_b);
    }
}

fn number(text: &str) -> (u64, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().unwrap_or(u64::MAX), &text[end..])
}

#[test]
fn lines_of_a_dump_are_compared_to_the_second() {
    let line = |s: u32, q: &str| format!("{{\"aor\":\"a@b\",\"remaining_s\":{s},\"q\":\"{q}\"}}");
    assert!(equal_within(&line(5, "x"), &line(6, "x"), 1));
    assert!(!equal_within(&line(5, "x"), &line(7, "x"), 1));
    assert!(!equal_within(&line(5, "x"), &line(5, "y"), 1));
    assert!(!equal_within(&line(5, "x"), "{}", 1));
}
