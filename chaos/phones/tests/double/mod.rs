//! A tiny registrar, single-threaded and in memory: what the judges are tried on, rightly and with planted faults.
//! It is no node and no model of one; it only speaks enough SIP to be judged.

use aorta_phones::message::{Message, NameAddr, Start, unescape};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a double does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Answers 200 and forgets, every n-th binding.
    Forget(usize),
    /// Says another q in redirects.
    AlterQ,
    /// Says 404 to the n-th lookup.
    Deny(usize),
    /// Loses the Path of redirects.
    DropPath,
    /// Ignores removals.
    Keep,
    /// Says 503 to everything.
    NotReady,
    /// Says nothing.
    Silent,
    /// Leaves out the To-tag.
    NoTag,
    /// Says that its 200s are short.
    Short,
    /// Does every n-th REGISTER and does not answer it.
    LoseReply(usize),
    /// Neither does nor answers every n-th REGISTER.
    LoseRequest(usize),
    /// Says short and forgets, every n-th binding.
    ShortForget(usize),
    /// Names another port in redirects.
    WrongPort,
    /// Redirects to contacts that lapsed.
    Immortal,
    /// Lets contacts lapse half a second early.
    Hasty,
}

#[derive(Clone)]
struct Bound {
    uri: String,
    /// Instance and `reg-id`, if it has both (RFC 5626).
    flow: Option<(String, String)>,
    params: Vec<String>,
    paths: Vec<String>,
    until: Instant,
}

/// The table that the doubles of one "cluster" share.
#[derive(Default)]
pub(crate) struct Table {
    aors: HashMap<String, Vec<Bound>>,
    registers: usize,
    lookups: usize,
}

/// One double on a socket of its own.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    task: JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Double {
    pub(crate) async fn start(table: &Arc<Mutex<Table>>, fault: Fault) -> Double {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback socket");
        let address = socket.local_addr().expect("its address");
        let fault = Arc::new(Mutex::new(fault));
        let task = tokio::spawn(serve(socket, table.clone(), fault.clone()));
        Double { address, fault, task }
    }

    /// `n` sound doubles over one table.
    pub(crate) async fn cluster(n: usize) -> (Vec<Double>, Vec<SocketAddr>) {
        let table = Arc::new(Mutex::new(Table::default()));
        let mut doubles = Vec::new();
        for _ in 0..n {
            doubles.push(Double::start(&table, Fault::None).await);
        }
        let addresses = doubles.iter().map(|d| d.address).collect();
        (doubles, addresses)
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().expect("never poisoned") = fault;
    }
}

async fn serve(socket: UdpSocket, table: Arc<Mutex<Table>>, fault: Arc<Mutex<Fault>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { return };
        let fault = *fault.lock().expect("never poisoned");
        let reply = table.lock().expect("never poisoned").answer(&buffer[..length], from, fault);
        if let Some(reply) = reply {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

fn key(uri: &str) -> String {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let (user, host) = rest.rsplit_once('@').expect("a user");
    let mut parts = host.split(';');
    let domain = parts.next().unwrap_or_default().split(':').next().unwrap_or_default().to_ascii_lowercase();
    let mut user = unescape(user).expect("escapes");
    if parts.any(|p| p == "user=phone") {
        user.retain(|c| !"-.()".contains(c));
    }
    format!("{user}@{domain}")
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

impl Table {
    fn answer(&mut self, bytes: &[u8], from: SocketAddr, fault: Fault) -> Option<Vec<u8>> {
        let message = Message::read(bytes).expect("phones speak SIP");
        let Start::Request { method, uri } = message.start else { return None };
        if method == "ACK" || fault == Fault::Silent {
            return None;
        }
        self.registers += usize::from(method == "REGISTER");
        let loses = |n: usize| method == "REGISTER" && self.registers.is_multiple_of(n);
        if matches!(fault, Fault::LoseRequest(n) if loses(n)) {
            return None;
        }
        let unheard = matches!(fault, Fault::LoseReply(n) if loses(n));
        let (status, fields) = match method {
            _ if fault == Fault::NotReady => ("503 Service Unavailable", String::new()),
            "OPTIONS" => ("200 OK", String::new()),
            "REGISTER" => ("200 OK", self.register(&message, fault)),
            _ => self.lookup(uri, fault),
        };
        if unheard {
            return None;
        }
        let mut reply = format!("SIP/2.0 {status}\r\n");
        for (nth, via) in message.list("Via").expect("Vias").into_iter().enumerate() {
            let via = if nth > 0 { via.to_owned() } else { via.replace(";rport", &format!(";rport={}", from.port())) };
            reply.push_str(&format!("Via: {via}{}\r\n", if nth > 0 { "" } else { ";received=127.0.0.1" }));
        }
        for name in ["From", "Call-ID", "CSeq"] {
            reply.push_str(&format!("{name}: {}\r\n", message.exactly_one(name).expect(name)));
        }
        let tag = if fault == Fault::NoTag { "" } else { ";tag=double" };
        reply.push_str(&format!(
            "To: {}{tag}\r\n{fields}Content-Length: 0\r\n\r\n",
            message.exactly_one("To").expect("To")
        ));
        Some(reply.into_bytes())
    }

    fn register(&mut self, message: &Message<'_>, fault: Fault) -> String {
        let aor = key(NameAddr::read(message.exactly_one("To").expect("To")).expect("To").uri);
        let paths: Vec<String> = message.list("Path").expect("Paths").into_iter().map(str::to_owned).collect();
        let header = message.one("Expires").expect("one Expires").map(|e| e.parse::<u32>().expect("seconds"));
        let supports_path = message.list("Supported").expect("Supported").contains(&"path");
        let now = Instant::now();
        let forgets = match fault {
            Fault::Forget(n) | Fault::ShortForget(n) => self.registers.is_multiple_of(n),
            _ => false,
        };
        let bound = self.aors.entry(aor).or_default();
        let before = bound.clone();
        for value in message.list("Contact").expect("Contacts") {
            if value == "*" {
                if fault != Fault::Keep {
                    bound.clear();
                }
                continue;
            }
            let contact = NameAddr::read(value).expect("a Contact");
            let seconds = contact.expires().expect("expires").or(header).unwrap_or(3600);
            if seconds == 0 && fault == Fault::Keep {
                continue;
            }
            let own = |name: &str| contact.param(name).map(str::to_owned);
            let flow = own("+sip.instance").zip(own("reg-id"));
            bound.retain(|b| b.uri != contact.uri && (flow.is_none() || b.flow != flow));
            if seconds > 0 {
                let params = contact.params.iter().filter(|(n, _)| *n != "expires");
                let params = params.map(|(n, v)| v.map_or((*n).to_owned(), |v| format!("{n}={v}"))).collect();
                let until = now + Duration::from_secs(u64::from(seconds));
                bound.push(Bound { uri: contact.uri.to_owned(), flow, params, paths: paths.clone(), until });
            }
        }
        let mut fields = String::from("Date: Sat, 21 Nov 2026 00:00:00 GMT\r\n");
        if matches!(fault, Fault::Short | Fault::ShortForget(_)) {
            fields.push_str("Aorta-Acks: got=0;asked=1;short;by=double\r\n");
        }
        for b in bound.iter().filter(|b| b.until > now) {
            let left = (b.until - now).as_secs_f64().round();
            let params: String = b.params.iter().map(|p| format!(";{p}")).collect();
            fields.push_str(&format!("Contact: <{}>{params};expires={left}\r\n", b.uri));
        }
        if supports_path && !paths.is_empty() {
            fields.push_str(&format!("Path: {}\r\n", paths.join(", ")));
        }
        if forgets {
            *bound = before;
        }
        fields
    }

    fn lookup(&mut self, uri: &str, fault: Fault) -> (&'static str, String) {
        self.lookups += 1;
        let mut bound = self.aors.get(&key(uri)).cloned().unwrap_or_default();
        let early = Duration::from_millis(if fault == Fault::Hasty { 500 } else { 0 });
        bound.retain(|b| fault == Fault::Immortal || b.until > Instant::now() + early);
        if bound.is_empty() || matches!(fault, Fault::Deny(n) if self.lookups == n) {
            return ("404 Not Found", String::new());
        }
        let q = |b: &Bound| {
            let text = b.params.iter().find_map(|p| p.strip_prefix("q=")).unwrap_or("1").to_owned();
            (text.parse::<f64>().expect("q") * 1000.0) as i64
        };
        bound.sort_by_key(|b| -q(b));
        let mut fields = String::new();
        for b in &bound {
            let mut params: String =
                b.params.iter().filter(|p| !p.starts_with("reg-id=")).map(|p| format!(";{p}")).collect();
            if fault == Fault::AlterQ {
                params = params.replace(";q=0.7", ";q=0.71");
            }
            let route = if b.paths.is_empty() || fault == Fault::DropPath {
                String::new()
            } else {
                let mark = if b.uri.contains('?') { '&' } else { '?' };
                format!("{mark}Route={}", escape(&b.paths.join(",")))
            };
            let uri = if fault == Fault::WrongPort { b.uri.replacen(":50", ":59", 1) } else { b.uri.clone() };
            fields.push_str(&format!("Contact: <{uri}{route}>{params}\r\n"));
        }
        ("302 Moved Temporarily", fields)
    }
}
