//! A small SBC: probes the nodes, calls through them in turn, fails over, follows redirects by their Route.
//!
//! It is what a Kamailio with dispatcher does in front of a cluster, no more: no media, no registrations (those are the
//! [`crate::Fleet`]'s), no dialogs beyond the ACK. A 4xx ends a call; a timeout or a 5xx moves it to another node.

use crate::edge::address_of;

use crate::fleet::Pace;
use crate::message::{Message, NameAddr};
use crate::nodes::{Nodes, check};
use crate::phone::{Household, Phone};
use crate::request::Text;
use crate::stats::{Counted, Latency};
use crate::transaction::{ack_of, ack_of_2xx, answers, is_passing};
use crate::verdict::{Mismatch, judge_redirect, target};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// Calls at the same time at most; further ones wait for a free place.
pub const CALLS_MAX: usize = 4096;

/// The timers of an SBC.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// A node that does not answer an INVITE for so long is passed over.
    pub node: Duration,
    /// The callee's edge must answer within this.
    pub callee: Duration,
    /// Each node gets an OPTIONS once in so long.
    pub probe_every: Duration,
    /// And is down when it does not answer 200 within this.
    pub probe: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            node: Duration::from_millis(500),
            callee: Duration::from_secs(3),
            probe_every: Duration::from_millis(500),
            probe: Duration::from_millis(500),
        }
    }
}

/// How a call went.
#[derive(Debug, Clone)]
pub struct Call {
    /// The callee's edge answered 200.
    pub completed: bool,
    /// From the first INVITE to the 200 or to the end.
    pub setup: Duration,
    /// Nodes that were asked, in order.
    pub nodes: Vec<SocketAddr>,
    /// Why it did not complete; empty if it did.
    pub reason: String,
    /// A redirect that was not what the phone had registered (the call may have completed all the same).
    pub mismatch: Option<Mismatch>,
}

/// Many calls.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// Calls tried.
    pub tried: u64,
    /// Calls completed.
    pub completed: u64,
    /// Calls that were given to more than one node.
    pub failed_over: u64,
    /// Reasons of those that did not complete.
    pub failed: Counted<String>,
    /// Redirects that were not right.
    pub mismatches: Counted<Mismatch>,
    /// Set-up times of the completed ones.
    pub setup: Latency,
    /// Redirects followed, by node.
    pub by_node: HashMap<SocketAddr, u64>,
}

impl Calls {
    fn add(&mut self, call: Call) {
        self.tried += 1;
        self.failed_over += u64::from(call.nodes.len() > 1);
        if call.completed {
            self.completed += 1;
            self.setup.add(call.setup);
            if let Some(node) = call.nodes.last() {
                *self.by_node.entry(*node).or_default() += 1;
            }
        } else {
            self.failed.add(call.reason);
        }
        if let Some(mismatch) = call.mismatch {
            self.mismatches.add(mismatch);
        }
    }

    /// All completed, and every redirect was right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tried == self.completed && self.mismatches.is_empty()
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} calls completed, set-up {:?}, {} failed over, by node {:?}, failed {:?}, mismatches {:?}",
            self.completed, self.tried, self.setup, self.failed_over, self.by_node, self.failed, self.mismatches
        )
    }
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    sent_by: String,
    nodes: Arc<Nodes>,
    timers: Timers,
    /// Open transactions by branch; bounded by the calls and probes at work.
    waiting: Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>,
    places: Semaphore,
    completed: AtomicU64,
    malformed: Mutex<Counted<String>>,
}

/// A running SBC; dropped, it is gone.
#[derive(Debug)]
pub struct Sbc {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Sbc {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Sbc {
    /// Starts to probe `nodes`; they count as up until a probe or a call says otherwise.
    ///
    /// # Errors
    /// No socket.
    pub async fn start(nodes: Arc<Nodes>, timers: Timers) -> anyhow::Result<Sbc> {
        let socket = UdpSocket::bind(nodes.local()).await?;
        let sent_by = socket.local_addr()?.to_string();
        let waiting = Mutex::default();
        let places = Semaphore::new(CALLS_MAX);
        let shared = Arc::new(Shared {
            socket,
            sent_by,
            nodes,
            timers,
            waiting,
            places,
            completed: AtomicU64::new(0),
            malformed: Mutex::default(),
        });
        let tasks = vec![tokio::spawn(shared.clone().receive()), tokio::spawn(shared.clone().probe())];
        Ok(Sbc { shared, tasks })
    }

    /// The nodes, with what the probes found; a [`crate::Fleet`] may share them.
    #[must_use]
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.shared.nodes
    }

    /// Calls one phone through the next node in turn.
    pub async fn call(&self, phone: &Phone) -> Call {
        self.shared.call(phone).await
    }

    /// Calls phones chosen at random from `who` at a steady pace, whatever happens meanwhile. The future owns all it
    /// needs, so that it can be spawned.
    pub fn calls(
        &self,
        household: &Arc<Household>,
        who: Vec<usize>,
        pace: &Pace,
    ) -> impl Future<Output = Calls> + use<> {
        let (shared, household, pace) = (self.shared.clone(), household.clone(), pace.clone());
        async move {
            let mut calls = Calls::default();
            let mut running = JoinSet::new();
            let gap = Duration::from_secs(1) / pace.per_second.max(1);
            let began = Instant::now();
            let mut due = began;
            while due < began + pace.longest && !who.is_empty() && !pace.stop.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                let (shared, household) = (shared.clone(), household.clone());
                let index = who[fastrand::usize(..who.len())];
                running.spawn(async move { shared.call(&Phone::new(&household, index)).await });
                while let Some(Ok(call)) = running.try_join_next() {
                    calls.add(call);
                }
                due += gap;
            }
            while let Some(ended) = running.join_next().await {
                if let Ok(call) = ended {
                    calls.add(call);
                }
            }
            calls
        }
    }

    /// Replies that could not be read.
    #[must_use]
    pub fn malformed(&self) -> Counted<String> {
        self.shared.malformed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls completed so far, for whoever watches.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn receive(self: Arc<Self>) {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = match self.socket.recv_from(&mut buffer).await {
                Ok((length, _)) => length,
                Err(error) if is_passing(&error) => continue,
                Err(_) => return,
            };
            let message = match Message::read(&buffer[..length]) {
                Ok(message) => message,
                Err(why) => {
                    let text = format!("{why} in {:?}", String::from_utf8_lossy(&buffer[..length]));
                    self.malformed.lock().unwrap_or_else(PoisonError::into_inner).add(text);
                    continue;
                }
            };
            let branch = message.raw("Via").next().and_then(branch_of);
            let provisional = message.status().is_none_or(|s| s < 200);
            let Some(branch) = branch.filter(|_| !provisional) else { continue };
            let waiter = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(branch);
            if let Some(waiter) = waiter {
                // Who no longer waits does not need it.
                let _ = waiter.send(buffer[..length].to_vec());
            }
        }
    }

    /// Asks all nodes in use, each again once its last probe is answered or given up.
    async fn probe(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.timers.probe_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut open, mut asked) = (JoinSet::new(), 0_u64);
        loop {
            tick.tick().await;
            while let Some(done) = open.try_join_next() {
                asked &= !(1 << done.unwrap_or(0_usize));
            }
            for node in (0..self.nodes.len()).filter(|node| self.nodes.is_used(*node)) {
                if asked >> node & 1 == 0 {
                    asked |= 1 << node;
                    open.spawn(self.clone().probe_one(node));
                }
            }
        }
    }

    async fn probe_one(self: Arc<Self>, node: usize) -> usize {
        let address = self.nodes.address(node);
        let text = Text::probe(address, fastrand::u64(..));
        let reply = self.ask(&text, address, self.timers.probe).await;
        let up = reply.is_some_and(|(_, r)| Message::read(&r).is_ok_and(|m| m.status() == Some(200)));
        self.nodes.set_up(node, up);
        node
    }

    /// One transaction: (what was sent, the final reply) or nothing in time.
    async fn ask(&self, text: &Text, to: SocketAddr, within: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
        let branch = format!("z9hG4bK{:016x}", fastrand::u64(..));
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(branch.clone(), sender);
        let datagram = text.datagram(&self.sent_by, &branch);
        let reply = match self.socket.send_to(&datagram, to).await {
            Ok(_) => tokio::time::timeout(within, receiver).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&branch);
        reply.map(|r| (datagram, r))
    }

    async fn call(&self, phone: &Phone) -> Call {
        let _place = self.places.acquire().await;
        let began = Instant::now();
        let mut call =
            Call { completed: false, setup: Duration::ZERO, nodes: Vec::new(), reason: String::new(), mismatch: None };
        if let Err(reason) = self.set_up(phone, &mut call).await {
            call.reason = format!("{}: {reason} (asked {:?})", phone.aor, call.nodes);
        }
        call.completed = call.reason.is_empty();
        call.setup = began.elapsed();
        self.completed.fetch_add(u64::from(call.completed), Ordering::Relaxed);
        call
    }

    async fn set_up(&self, phone: &Phone, call: &mut Call) -> Result<(), String> {
        let nonce = fastrand::u64(..);
        let invite = phone.called("INVITE", nonce);
        let mut tried = 0;
        while let Some(node) = self.nodes.pick(tried) {
            tried |= 1 << node;
            let address = self.nodes.address(node);
            call.nodes.push(address);
            let Some((sent, reply)) = self.ask(&invite, address, self.timers.node).await else {
                self.nodes.set_up(node, false);
                continue;
            };
            let message = Message::read(&reply).map_err(|why| why.to_string())?;
            answers(&message, &sent).map_err(|why| why.to_string())?;
            if let Some(ack) = ack_of(&sent, &message) {
                // An ACK is never answered; a lost one costs a retransmission.
                let _ = self.socket.send_to(&ack, address).await;
            }
            match message.status() {
                Some(302 | 300) => {
                    if let Err((expected, got)) = judge_redirect(phone, &message) {
                        call.mismatch = Some(Mismatch { node: address, aor: phone.aor.clone(), expected, got });
                    }
                    return self.follow(phone, nonce, &message).await;
                }
                Some(500..600) => _ = self.nodes.set_up(node, false),
                other => return Err(format!("{address} said {other:?}")),
            }
        }
        Err("no node answered".to_owned())
    }

    /// Tries the contacts of a redirect in order.
    async fn follow(&self, phone: &Phone, nonce: u64, redirect: &Message<'_>) -> Result<(), String> {
        let mut why = "a redirect without contacts".to_owned();
        for contact in redirect.contacts().map_err(|e| e.to_string())? {
            match self.deliver(phone, nonce, &contact).await {
                Ok(()) => return Ok(()),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    async fn deliver(&self, phone: &Phone, nonce: u64, contact: &NameAddr<'_>) -> Result<(), String> {
        let (uri, route) = target(contact).map_err(|e| e.to_string())?;
        let (hop, invite) = leg(phone, nonce, &uri, &route)?;
        let Some((sent, reply)) = self.ask(&invite, hop, self.timers.callee).await else {
            return Err(format!("the edge {hop} did not answer"));
        };
        let message = Message::read(&reply).map_err(|e| e.to_string())?;
        answers(&message, &sent).map_err(|e| e.to_string())?;
        if message.status() != Some(200) {
            return Err(format!("the edge {hop} said {:?}", message.start));
        }
        if let Some(ack) = ack_of_2xx(&sent, &message) {
            // An ACK is never answered.
            let _ = self.socket.send_to(&ack, hop).await;
        }
        Ok(())
    }
}

/// The INVITE to a contact of a redirect and where it goes first: along the contact's route, else to its own address.
pub(crate) fn leg(phone: &Phone, nonce: u64, uri: &str, route: &[String]) -> Result<(SocketAddr, Text), String> {
    // Headers have no place in a Request-URI (RFC 3261 §19.1.1, table 1).
    let uri = uri.split('?').next().unwrap_or_default();
    let hop = route.first().and_then(|r| NameAddr::read(r).ok().map(|r| r.uri)).unwrap_or(uri);
    let Some(hop) = address_of(hop).filter(|a| check(a).is_ok()) else {
        return Err(format!("{hop} is not within reach"));
    };
    let mut invite = phone.called("INVITE", nonce);
    invite.start = format!("INVITE {uri} SIP/2.0\r\n");
    invite.rest.insert_str(0, &route.iter().map(|r| format!("Route: {r}\r\n")).collect::<String>());
    Ok((hop, invite))
}

fn branch_of(via: &str) -> Option<&str> {
    via.split_once(";branch=")?.1.split([';', ',', ' ']).next()
}
