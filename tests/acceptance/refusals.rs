//! Who does not get in, tried with real nodes: a foreign CA, an expired certificate, a twin. Each is told once in each
//! log, and those inside go on as if nothing had happened. (What needs forged bytes is tried at the links themselves.)

use crate::cluster::{Cluster, SOON, await_state, clean, program};
use aorta::cli::fleet::Fleet as Processes;
use aorta::cli::layout::{self, Place};
use aorta::clock;
use aorta::cluster::certificate::Authority;
use aorta_phones::{Fleet, Household};
use aorta_proto::NodeId;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const DAY_S: i64 = 86_400;

/// Two good nodes with a few phones.
async fn insiders() -> (Cluster, Fleet) {
    let cluster = Cluster::started(2, "");
    let mut fleet = Fleet::new(Household::new(81), 200);
    clean("register", &fleet.register(3600, &cluster.sips(2)).await.expect("sockets"));
    (cluster, fleet)
}

/// Starts `outsider` and waits until both good nodes have said why it does not get in; it must not become ready.
async fn kept_out(cluster: &Cluster, fleet: &mut Fleet, outsider: Place, why: &str) {
    assert!((0..2).all(|n| refusals(cluster, n, "").is_empty()));
    let mut processes = Processes::new(&program(), vec![outsider]);
    processes.start(0).expect("a process");
    for node in 0..2 {
        await_state(&format!("node{} says '{why}'", node + 1), SOON, || !refusals(cluster, node, why).is_empty());
    }
    // It tries again every half second, in vain and without another line.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in 0..2 {
        let said = refusals(cluster, node, "");
        println!("{}", said.join("\n"));
        assert_eq!(said.len(), 1, "one line each, however often it tries: {said:#?}");
    }
    // Either it ended and said why, or it waits and says why.
    let ended = processes.ended(0).expect("its state");
    let waits = processes.nodes()[0].client().readiness();
    let told = waits.as_ref().ok().and_then(|r| r.as_ref().err()).map_or(0, |reason| reason.matches(why).count());
    assert!(told <= 1, "says it {told} times: {waits:?}");
    assert!(ended.is_some_and(|s| !s.success()) || waits.is_ok_and(|r| r.is_err()), "it is neither gone nor waiting");
    let all = cluster.sips(2);
    cluster.all_right(fleet, &all).await;
    cluster.agree(Duration::from_secs(5));
}

/// Lines of a node's log that refuse a link.
fn refusals(cluster: &Cluster, node: usize, why: &str) -> Vec<String> {
    let log = cluster.log(node);
    log.lines().filter(|l| l.contains("refused") && l.contains(why)).map(str::to_owned).collect()
}

/// A node laid out in a folder of its own, so with a CA of its own, whose seeds are the good nodes.
fn stranger(folder: &Path, seeds: &[SocketAddr]) -> Place {
    let ports = layout::free_ports(1).expect("free ports");
    let place = layout::write(folder, &ports, "").expect("a layout").remove(0);
    let seeds: Vec<String> = seeds.iter().map(|s| format!("\"{s}\"")).collect();
    rewrite(&place.config, &[(format!("seeds = [\"{}\"]", place.cluster), format!("seeds = [{}]", seeds.join(", ")))]);
    place
}

fn rewrite(file: &Path, changes: &[(String, String)]) {
    let mut text = std::fs::read_to_string(file).expect("a configuration");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    std::fs::write(file, text).expect("a configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_ca_is_kept_out() {
    let (cluster, mut fleet) = insiders().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let seeds = [cluster.place(0).cluster, cluster.place(1).cluster];
    let outsider = stranger(elsewhere.path(), &seeds);
    rewrite(&outsider.config, &[("node_id = \"node1\"".to_owned(), "node_id = \"\"".to_owned())]);
    kept_out(&cluster, &mut fleet, outsider, "not signed by this cluster's CA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_kept_out() {
    let (mut cluster, mut fleet) = insiders().await;
    let third = cluster.lay_out(1);
    let read = |name: &str| std::fs::read_to_string(cluster.folder.path().join(name)).expect("the CA");
    let authority = Authority::load(&read("ca.pem"), &read("ca.key")).expect("the CA");
    let past = i64::try_from(clock::wall_us() / 1_000_000).expect("a date") - 10 * DAY_S;
    let issued = authority.issue(&NodeId::new("node3").expect("a name"), past, 1).expect("a certificate");
    let outsider = cluster.place(third).clone();
    std::fs::write(outsider.folder.join("node.pem"), issued.certificate).expect("written");
    std::fs::write(outsider.folder.join("node.key"), issued.key).expect("written");
    kept_out(&cluster, &mut fleet, outsider, "expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_kept_out() {
    let (cluster, mut fleet) = insiders().await;
    let original = cluster.place(0).clone();
    let ports = layout::free_ports(1).expect("free ports").remove(0);
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (sip, http, mesh) = (at(ports.sip), at(ports.http), at(ports.cluster));
    let twin = Place {
        config: original.folder.join("twin.toml"),
        log: original.folder.join("twin.log"),
        sip,
        http,
        cluster: mesh,
        ..original.clone()
    };
    std::fs::copy(&original.config, &twin.config).expect("a configuration");
    rewrite(
        &twin.config,
        &[
            (format!("listen = [\"{}\"]", original.sip), format!("listen = [\"{sip}\"]")),
            (format!("listen = \"{}\"", original.http), format!("listen = \"{http}\"")),
            (format!("listen = \"{}\"", original.cluster), format!("listen = \"{mesh}\"")),
            ("/data\"".to_owned(), "/twin-data\"".to_owned()),
        ],
    );
    kept_out(&cluster, &mut fleet, twin, "is its twin").await;
}
