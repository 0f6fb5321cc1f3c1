//! The access edge that every Path names: takes the calls that an SBC routes to it and answers them for the phones.
//!
//! One socket stands for every phone behind it. It complains about an INVITE that does not come by a Route to itself,
//! and about a Request-URI that still carries headers; it never redirects, challenges or rings.

use crate::message::{Malformed, Message, NameAddr, Start, malformed};
use crate::stats::Counted;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The header of a 200 that names the Request-URI which was called: the contact that rang.
pub(crate) const REACHED: &str = "Edge-Reached";

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    acked: AtomicU64,
    complaints: Mutex<Counted<String>>,
}

/// A running edge; dropped, it is gone.
#[derive(Debug)]
pub struct Edge {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Edge {
    /// Starts an edge on a free loopback port.
    ///
    /// # Errors
    /// No socket.
    pub async fn start() -> anyhow::Result<Edge> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(serve(socket, address, counts.clone()));
        Ok(Edge { address, counts, task })
    }

    /// The address that a [`crate::Household`] names in its Paths.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// INVITEs answered with 200.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// ACKs received.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.counts.acked.load(Ordering::Relaxed)
    }

    /// Requests that should not have come, or not so.
    #[must_use]
    pub fn complaints(&self) -> Counted<String> {
        self.counts.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(socket: UdpSocket, address: SocketAddr, counts: Arc<Counts>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) if crate::transaction::is_passing(&error) => continue,
            Err(_) => return,
        };
        match answer(&buffer[..length], from, address) {
            Ok(Some(reply)) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                // A lost reply is asked for again.
                let _ = socket.send_to(&reply, from).await;
            }
            Ok(None) => _ = counts.acked.fetch_add(1, Ordering::Relaxed),
            Err(why) => {
                let text = format!("{why} in {:?}", String::from_utf8_lossy(&buffer[..length]));
                counts.complaints.lock().unwrap_or_else(PoisonError::into_inner).add(text);
            }
        }
    }
}

/// The 200 to an INVITE; `None` for an ACK.
fn answer(datagram: &[u8], from: SocketAddr, address: SocketAddr) -> Result<Option<Vec<u8>>, Malformed> {
    let message = Message::read(datagram)?;
    let Start::Request { method, uri } = message.start else { return malformed("a reply at the edge") };
    if method == "ACK" {
        return Ok(None);
    }
    if uri.contains('?') {
        return malformed("headers in the Request-URI");
    }
    let routes = message.list("Route")?;
    let Some(first) = routes.first() else { return malformed("no Route") };
    if address_of(NameAddr::read(first)?.uri) != Some(address) {
        return malformed("the first Route is not this edge");
    }
    let mut reply = String::from("SIP/2.0 200 OK\r\n");
    for (nth, via) in message.list("Via")?.into_iter().enumerate() {
        let via = if nth > 0 { via.to_owned() } else { via.replace(";rport", &format!(";rport={}", from.port())) };
        reply.push_str(&format!("Via: {via}\r\n"));
    }
    for name in ["From", "Call-ID", "CSeq"] {
        reply.push_str(&format!("{name}: {}\r\n", message.exactly_one(name)?));
    }
    for route in message.raw("Record-Route") {
        reply.push_str(&format!("Record-Route: {route}\r\n"));
    }
    let to = message.exactly_one("To")?;
    reply.push_str(&format!(
        "To: {to};tag=edge\r\nContact: <sip:callee@{address}>\r\n{REACHED}: {uri}\r\nContent-Length: 0\r\n\r\n"
    ));
    Ok(Some(reply.into_bytes()))
}

/// The address of a URI whose host is an IP address; port 5060 when it names none.
pub(crate) fn address_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':')?.1;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split([';', '?']).next()?;
    host.parse().ok().or_else(|| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Some(SocketAddr::new(bare.parse().ok()?, 5060))
    })
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn addresses_are_read_from_uris() {
        for (uri, address) in [
            ("sip:tok%2F@127.0.0.1:5070;lr", Some("127.0.0.1:5070")),
            ("sip:[::1]:5070;lr", Some("[::1]:5070")),
            ("sip:[::1];lr", Some("[::1]:5060")),
            ("sip:a@127.0.0.1?X=1", Some("127.0.0.1:5060")),
            ("sip:a@host.invalid", None),
        ] {
            assert_eq!(address_of(uri), address.map(|a| a.parse().expect("an address")), "{uri}");
        }
    }
}
