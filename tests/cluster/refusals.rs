//! Who is not let in, and what an operator reads about it: one line, with the reason and the way out.

use std::net::SocketAddr;

use aorta::cluster::certificate::Authority;
use aorta::cluster::{ClusterError, Identity, IdentityError, IdentityFiles, RefusalKind};
use aorta_proto::frame::Class;

use super::raw::{Raw, Shows};
use super::{CLUSTER, Ca, Node, Start, id, logged, now_s};

const DAY_S: i64 = 86_400;

/// Starts `intruder` with `node` as its seed and waits until both know of the refusal; then the lines that `node` wrote
/// about it and those of the intruder.
fn refused(node: &Node, intruder: &Node, reason: &str) {
    let (theirs, ours) = (intruder.address, node.address);
    let about = |address: SocketAddr| format!("address={address}");
    let told = |node: &Node, address: SocketAddr| {
        node.above.until(&format!("refusal: {reason}"), |above| {
            above.refusals().iter().filter(|r| r.address == address && r.why.contains(reason)).count() >= 2
        });
    };
    told(intruder, ours);
    told(node, theirs);
    assert_eq!(
        logged(&["refused the link", reason, &about(ours)]).len()
            + logged(&["link refused", reason, &about(ours)]).len(),
        1
    );
    assert_eq!(
        logged(&["refused the link", reason, &about(theirs)]).len()
            + logged(&["link refused", reason, &about(theirs)]).len(),
        1
    );
    for (here, there) in [(node, intruder), (intruder, node)] {
        assert_eq!(here.above.linked(&there.name, Class::Live), 0);
        assert_eq!(here.above.received(&there.name, Class::Live), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_foreign_ca_is_refused() {
    let (ours, foreign) = (Ca::new(CLUSTER), Ca::new(CLUSTER));
    let a = Start::new("a", 1, &[]).run(ours.identity("a"));
    let b = Start::new("b", 2, &[a.address]).run(foreign.identity("b"));
    refused(&a, &b, "not signed by this cluster's CA; issue it with `aorta cert issue`");
    // What strangers say is no word of a peer's.
    for node in [&a, &b] {
        assert!(node.above.refusals().iter().all(|refusal| refusal.kind == RefusalKind::Handshake));
    }
}

#[test]
fn a_foreign_ca_that_trusts_ours_is_refused() {
    let (ours, foreign) = (Ca::new(CLUSTER), Ca::new(CLUSTER));
    let a = Start::new("a", 1, &[]).run(ours.identity("a"));
    let both = format!("{}{}", ours.pem.certificate, foreign.pem.certificate);
    let files = foreign.files("b", now_s(), &both);
    let b = Start::new("b", 2, &[a.address]).run(Identity::load(&files, Some(&id("b"))).unwrap());
    refused(&a, &b, "the certificate of node 'b' is not signed by this cluster's CA");
}

#[test]
fn an_expired_certificate_is_refused_and_its_own_node_knows() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let identity = ca.identity_at("b", now_s() - 400 * DAY_S);
    assert!(identity.validity.problem(now_s()).unwrap().contains("expired on"));
    let b = Start::new("b", 2, &[a.address]).run(identity);
    refused(&a, &b, "the certificate of node 'b' expired on");
    assert!(b.above.refusals().iter().all(|refusal| refusal.kind == RefusalKind::ByPeer));
    assert!(b.cluster().certificate().validity.problem(now_s()).is_some());
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let b = Start::new("b", 2, &[a.address]).run(ca.identity_at("b", now_s() + 3 * DAY_S));
    refused(&a, &b, "the certificate of node 'b' is not valid yet; set the clock");
}

#[test]
fn a_clock_a_day_behind_hurts_nobody() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let b = Start::new("b", 2, &[a.address]).run(ca.identity_at("b", now_s() + DAY_S));
    a.above.until("linked", |above| above.has("b"));
    b.above.until("linked", |above| above.has("a"));
}

#[test]
fn the_same_ca_with_another_cluster_id_is_refused() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let b = Start::new("b", 2, &[a.address]).run(ca.identity_in("green", "b"));
    // Whoever sees the other's certificate first refuses; in the dial of b, that is b.
    refused(&a, &b, "node 'a' belongs to cluster 'blue', this is cluster 'green'");
}

#[test]
fn no_certificate_is_refused() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let raw = Raw::new(&ca, Shows::Nothing);
    let reason = raw.dial_refused(a.address);
    assert!(reason.contains("no certificate"), "{reason}");
    let line = "the peer shows no certificate; issue it one with `aorta cert issue`";
    a.above
        .until("refusal", |above| above.refusals().iter().any(|r| r.kind == RefusalKind::Handshake && r.why == line));
    assert_eq!(logged(&["link refused", line]).len(), 1);
}

#[test]
fn another_protocol_version_is_refused() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let raw = Raw::with_alpn(&ca, Shows::Node("b"), b"aorta/2");
    raw.dial_refused(a.address);
    a.above.until("refusal", |above| {
        above.refusals().iter().any(|r| r.why.contains("another version of the peer protocol"))
    });
}

fn load(files: &IdentityFiles) -> String {
    Identity::load(files, Some(&id("a"))).unwrap_err().to_string()
}

#[test]
fn own_files_that_do_not_fit_are_named_with_key_file_and_way_out() {
    let ca = Ca::new(CLUSTER);
    let good = ca.files("a", now_s(), &ca.pem.certificate);
    let missing = IdentityFiles { key: ca.path().join("nothing.key"), ..good.clone() };
    let said = load(&missing);
    assert!(
        said.starts_with("cluster.key = \"") && said.contains("nothing.key") && said.contains("cannot be read"),
        "{said}"
    );
    let no_pem = IdentityFiles { certificate: good.key.clone(), ..good.clone() };
    assert!(load(&no_pem).contains("holds no certificate"), "{}", load(&no_pem));
    let other = ca.files("b", now_s(), &ca.pem.certificate);
    let swapped = IdentityFiles { key: other.key.clone(), ..good.clone() };
    assert!(load(&swapped).contains("is not the key of cluster.certificate"), "{}", load(&swapped));
    assert!(load(&other).contains("is node 'b', but node_id = \"a\""), "{}", load(&other));
    let foreign = Authority::create(CLUSTER, now_s(), 10).unwrap();
    let misled = ca.files("a", now_s(), &foreign.certificate);
    assert!(load(&misled).contains("is not signed by cluster.ca"), "{}", load(&misled));
    let authority = IdentityFiles { certificate: good.ca.clone(), ..good.clone() };
    assert!(matches!(Identity::load(&authority, None), Err(IdentityError::File { .. })));
}

#[test]
fn a_port_in_use_is_named() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let error = Start::new("b", 2, &[]).at(a.address).try_run(ca.identity("b")).err().unwrap();
    assert!(error.to_string().starts_with(&format!("cluster.listen = \"{}\": ", a.address)), "{error}");
    assert!(matches!(error, ClusterError::Listen { .. }));
    let wildcard = Start::new("b", 2, &[]).at("0.0.0.0:0".parse().unwrap()).try_run(ca.identity("b"));
    assert!(matches!(wildcard.err().unwrap(), ClusterError::Advertise(_)));
}
