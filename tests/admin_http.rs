//! The HTTP interface as an operator's tools see it, on real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use aorta::admin::{Admin, BindError, ClusterView, MemberView, Node, Promise, Refused, Removal, Settings, Shown};
use aorta::clock::Clock;
use aorta::location::Location;
use aorta::metrics::{Metrics, catalogue};
use aorta_proto::uri::AorRules;
use aorta_proto::{Aor, Binding, BindingParts, BootId, Cleared, ContactKey, Entry, NodeId, Record, Stamp, Value};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Cluster time of all tests, microseconds.
const NOW_US: u64 = 1_800_000_000_000_000;

const DEADLINE: Duration = Duration::from_secs(20);

/// Remembers its orders.
#[derive(Default)]
struct Fake {
    unready: Option<&'static str>,
    orders: Mutex<Vec<String>>,
}

impl Node for Fake {
    fn readiness(&self) -> Result<Option<String>, String> {
        self.unready.map_or(Ok(None), |why| Err(why.to_owned()))
    }

    fn cluster(&self) -> ClusterView {
        let members = vec![MemberView { node: "n2".to_owned(), linked: true, ..MemberView::default() }];
        ClusterView { node: "n1".to_owned(), ready: true, members, ..ClusterView::default() }
    }

    fn remove<'a>(&'a self, aor: Aor, contact: Option<String>) -> Promise<'a, Result<Removal, Refused>> {
        Box::pin(async move {
            let removed = usize::from(aor.as_str().starts_with("phone"));
            self.orders.lock().push(format!("remove {aor} {contact:?}"));
            Ok(Removal { removed, short: false })
        })
    }

    fn drain(&self) {
        self.orders.lock().push("drain".to_owned());
    }

    fn force_ready(&self) -> Result<(), Refused> {
        Err(Refused::Conflict("the cluster's time is unknown".to_owned()))
    }

    fn forget(&self, node: &NodeId) -> Result<(), Refused> {
        self.orders.lock().push(format!("forget {node}"));
        Ok(())
    }
}

struct Rig {
    addr: SocketAddr,
    node: Arc<Fake>,
    location: Arc<Location>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Rig {
    fn new(node: Fake, token: Option<&str>) -> Self {
        let rules = AorRules::new([], [("192.0.2.1", "example.com")], None, true).expect("hosts");
        let settings =
            Settings { listen: "127.0.0.1:0".parse().expect("an address"), token: token.map(str::to_owned), rules };
        let clock = Arc::new(Clock::manual(Arc::new(AtomicU64::new(1_000_000)), BootId(1)));
        clock.adopt(NOW_US);
        let (node, metrics) = (Arc::new(node), Arc::new(Metrics::new()));
        let location = Arc::new(Location::new([7; 16], false));
        let shown = Shown { node: Arc::clone(&node), location: Arc::clone(&location), clock, metrics };
        let metrics = Arc::clone(&shown.metrics);
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let admin = Admin::bind(settings).await.expect("a port");
                sender.send(admin.address()).expect("awaited");
                admin.serve(shown, stopped).await.expect("serves");
            });
        });
        let addr = receiver.recv_timeout(DEADLINE).expect("bound");
        Self { addr, node, location, metrics, stop, server: Some(server) }
    }

    /// Status, and body.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).expect("accepted");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { unchunked(body) } else { body.to_owned() })
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "Host: localhost\r\n")
    }

    fn post(&self, path: &str) -> (u16, String) {
        self.ask("POST", path, "Host: localhost\r\nContent-Length: 0\r\n")
    }

    fn orders(&self) -> Vec<String> {
        std::mem::take(&mut self.node.orders.lock())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.server.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server stops");
        }
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").expect("a chunk's end");
    }
    panic!("the last chunk is missing");
}

fn aor(text: &str) -> Aor {
    Aor::from_canonical(text)
}

fn entry(uri: &str, ago_us: u64, live: bool) -> Entry {
    let stamp = Stamp { time_us: NOW_US - ago_us, counter: 0, boot: BootId(5) };
    let binding = Binding::from(&BindingParts {
        first: stamp,
        granted_s: 3600,
        uri: uri.as_bytes(),
        params: ";q=0.5;x=\"\u{e9}\"".as_bytes(),
        q: Some(500),
        path: &[&b"<sip:p1;lr>"[..], b"<sip:p2;lr>"],
        call_id: b"call-1",
        user_agent: b"Phone \xff 1.0",
        source: b"udp:192.0.2.9:5060",
        accepted_by: &NodeId::new("n3").expect("a name"),
    });
    Entry {
        key: ContactKey::uri(uri.as_bytes()),
        stamp,
        call_id_hash: 9,
        cseq: 42,
        uri_hash: u64::from(uri.bytes().map(u32::from).sum::<u32>()),
        value: if live { Value::Live(Arc::new(binding)) } else { Value::Gone },
    }
}

fn record(entries: Vec<Entry>) -> Record {
    Record { cleared: None, entries }
}

fn parsed(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn probes_and_metrics_are_plain() {
    let rig = Rig::new(Fake::default(), None);
    assert_eq!(rig.get("/livez"), (200, "alive\n".to_owned()));
    assert_eq!(rig.get("/readyz"), (200, "ready\n".to_owned()));
    rig.metrics.gauge(&catalogue::CONTACTS, &[]).set(3.0);
    let (status, text) = rig.get("/metrics");
    assert!(status == 200 && text.contains("\naorta_contacts 3\n"), "{text}");
    let unready = Rig::new(Fake { unready: Some("joining: no donor yet"), ..Fake::default() }, None);
    assert_eq!(unready.get("/readyz"), (503, "joining: no donor yet\n".to_owned()));
    assert_eq!(unready.get("/livez").0, 200);
}

#[test]
fn the_cluster_is_shown_as_the_node_sees_it() {
    let rig = Rig::new(Fake::default(), None);
    let (status, body) = rig.get("/v1/cluster");
    assert_eq!(status, 200);
    let view: ClusterView = serde_json::from_str(&body).expect("a view");
    assert_eq!(view, rig.node.cluster());
}

#[test]
fn a_dump_has_every_live_contact_with_all_that_is_known_of_it() {
    let rig = Rig::new(Fake::default(), None);
    let live = entry("sip:a@192.0.2.9", 100_500_000, true);
    let lapsed = entry("sip:old@192.0.2.9", 3_600_000_000, true);
    let gone = entry("sip:gone@192.0.2.9", 10, false);
    rig.location.apply(&aor("phone@example.com"), record(vec![live, lapsed, gone]));
    let cleared = Cleared { stamp: Stamp { time_us: NOW_US, ..Stamp::ZERO }, call_id_hash: 1, cseq: 2 };
    rig.location.apply(&aor("nobody@example.com"), Record { cleared: Some(cleared), entries: Vec::new() });
    let (status, body) = rig.get("/v1/aors");
    assert_eq!(status, 200);
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.len(), 1, "{body}");
    let wanted = serde_json::json!({
        "aor": "phone@example.com", "contact": "sip:a@192.0.2.9", "params": ";q=0.5;x=\"\u{e9}\"", "q": 500,
        "path": ["<sip:p1;lr>", "<sip:p2;lr>"], "source": "udp:192.0.2.9:5060", "user_agent": "Phone \\xff 1.0",
        "call_id": "call-1", "cseq": 42, "node": "n3", "stamp": "1799999899500000.0.0000000000000005",
        "first": "1799999899500000.0.0000000000000005", "granted_s": 3600, "remaining_s": 3500,
    });
    assert_eq!(parsed(lines[0]), wanted);
    let (_, all) = rig.get("/v1/aors?gone=true");
    assert_eq!(all.lines().count(), 4, "{all}");
    assert!(all.contains("\"why\":\"lapsed\"") && all.contains("\"why\":\"removed\"") && all.contains("\"cleared\""));
}

#[test]
fn a_large_dump_is_whole_and_the_same_from_equal_tables() {
    let (one, two) = (Rig::new(Fake::default(), None), Rig::new(Fake::default(), None));
    let write = |rig: &Rig, number: usize| {
        let uri = format!("sip:{number}@192.0.2.9");
        rig.location.apply(&aor(&format!("phone{number}@example.com")), record(vec![entry(&uri, 1, true)]));
    };
    (0..20_000).for_each(|number| write(&one, number));
    (0..20_000).rev().for_each(|number| write(&two, number));
    let (first, second) = (one.get("/v1/aors").1, two.get("/v1/aors").1);
    assert_eq!(first.lines().count(), 20_000);
    assert!(first == second, "the same table gives the same bytes");
}

#[test]
fn one_aor_is_shown_whole_however_it_is_written() {
    let rig = Rig::new(Fake::default(), None);
    let entries = vec![entry("sip:a@192.0.2.9", 1, true), entry("sip:gone@192.0.2.9", 10, false)];
    rig.location.apply(&aor("ann e@example.com"), record(entries));
    for written in
        ["ann%20e@example.com", "ann%20e%40EXAMPLE.com", "sip:ann%2520e%40192.0.2.1", "sips:ann%2520e@example.com:9"]
    {
        let (status, body) = rig.get(&format!("/v1/aors/{written}"));
        assert_eq!(status, 200, "{written}: {body}");
        let view = parsed(&body);
        assert_eq!(view["aor"], "ann e@example.com");
        assert_eq!(view["contacts"][0]["contact"], "sip:a@192.0.2.9");
        assert_eq!(view["gone"][0]["why"], "removed");
    }
    let (status, body) = rig.get("/v1/aors/nobody@example.com");
    assert_eq!((status, parsed(&body)["error"].as_str()), (404, Some("nothing is known of nobody@example.com")));
    let (status, body) = rig.get("/v1/aors/nonsense");
    assert!(status == 400 && parsed(&body)["error"].is_string(), "{body}");
}

#[test]
fn orders_reach_the_node() {
    let rig = Rig::new(Fake::default(), None);
    let (status, body) = rig.ask("DELETE", "/v1/aors/phone@example.com", "Host: localhost\r\n");
    assert_eq!((status, parsed(&body)), (200, serde_json::json!({ "removed": 1, "short": false })));
    let path = "/v1/aors/none@example.com?contact=sip%3Aa%40192.0.2.9%3Bx%3D%2526";
    assert_eq!(rig.ask("DELETE", path, "Host: localhost\r\n").0, 404);
    assert_eq!(rig.post("/v1/drain").0, 202);
    assert_eq!(rig.post("/v1/forget/n2").0, 204);
    let wanted = [
        "remove phone@example.com None",
        "remove none@example.com Some(\"sip:a@192.0.2.9;x=%26\")",
        "drain",
        "forget n2",
    ];
    assert_eq!(rig.orders(), wanted);
    let (status, body) = rig.post("/v1/ready");
    assert_eq!((status, parsed(&body)["error"].as_str()), (409, Some("the cluster's time is unknown")));
}

#[test]
fn what_makes_no_sense_is_refused_in_json() {
    let rig = Rig::new(Fake::default(), None);
    let cases = [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/drain", 405),
        ("POST", "/v1/aors", 405),
        ("POST", "/v1/forget/UPPER", 400),
        ("GET", "/v1/aors?gonne=true", 400),
        ("GET", "/v1/aors/%ff@example.com", 400),
        ("DELETE", "/v1/aors/phone@example.com?kontact=x", 400),
    ];
    for (method, path, wanted) in cases {
        let (status, body) = rig.ask(method, path, "Host: localhost\r\n");
        assert_eq!(status, wanted, "{method} {path}: {body}");
        assert!(parsed(&body)["error"].is_string(), "{method} {path}: {body}");
    }
    assert!(rig.orders().is_empty());
}

#[test]
fn with_a_token_only_probes_are_open() {
    let rig = Rig::new(Fake::default(), Some("s3cret"));
    assert_eq!(rig.ask("GET", "/livez", "").0, 200);
    assert_eq!(rig.ask("GET", "/readyz", "").0, 200);
    for headers in
        ["", "Authorization: Bearer s3cre\r\n", "Authorization: s3cret\r\n", "Authorization: Basic s3cret\r\n"]
    {
        for (method, path) in [("GET", "/metrics"), ("GET", "/v1/aors"), ("POST", "/v1/drain"), ("GET", "/nowhere")] {
            assert_eq!(rig.ask(method, path, &format!("Host: x\r\n{headers}")).0, 401, "{method} {path} {headers}");
        }
    }
    assert!(rig.orders().is_empty());
    assert_eq!(rig.ask("POST", "/v1/drain", "Host: any.example\r\nAuthorization: bearer s3cret\r\n").0, 202);
}

#[test]
fn without_a_token_no_web_page_gives_orders() {
    let rig = Rig::new(Fake::default(), None);
    assert_eq!(rig.ask("GET", "/v1/aors", "Host: rebound.example\r\n").0, 403);
    assert_eq!(rig.ask("POST", "/v1/drain", "Host: 127.0.0.1:8060\r\nOrigin: http://evil.example\r\n").0, 403);
    assert!(rig.orders().is_empty());
}

#[test]
fn beyond_loopback_a_token_is_needed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listen = "0.0.0.0:0".parse().expect("an address");
    let refused = |token: Option<&str>| {
        let settings = Settings { listen, token: token.map(str::to_owned), rules: AorRules::default() };
        runtime.block_on(Admin::bind(settings)).err()
    };
    assert!(matches!(refused(None), Some(BindError::TokenNeeded(_))));
    assert!(matches!(refused(Some("")), Some(BindError::TokenNeeded(_))));
    assert!(refused(Some("s3cret")).is_none());
}

#[test]
fn stopping_does_not_wait_for_those_who_dawdle() {
    let rig = Rig::new(Fake::default(), None);
    let mut dawdler = TcpStream::connect(rig.addr).expect("accepted");
    dawdler.write_all(b"GET /livez HT").expect("sent");
    assert_eq!(rig.get("/livez").0, 200);
    // Dropping it joins the server.
    drop(rig);
}
