//! One socket and its transactions: sends what its [`Work`] gives it, sends again, fails over, hands back the replies.
//!
//! Closed loop (as many in flight as the window allows) or open loop (each request has a due time). It judges only
//! that a reply is well formed and answers what was sent; what it says is for the `Work`. It never waits without a
//! deadline, and holds at most [`WINDOW_MAX`] requests.

use crate::message::Message;
use crate::nodes::Nodes;
use crate::request::Text;
use crate::stats::Stats;
use crate::transaction::{ack_of, ack_of_2xx, answers, is_passing};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Requests in flight on one socket at most.
pub const WINDOW_MAX: usize = 4096;
/// Longest pause between two looks at the timers and at the work.
const LOOK: Duration = Duration::from_millis(5);
/// Replies read before the other tasks of this thread get their turn.
const BURST: usize = 64;
/// T2 of RFC 3261 §17.1.2.2: retransmissions are never further apart.
const T2: Duration = Duration::from_secs(4);

/// How long a request waits for whom.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// First retransmission after this, doubled each time up to 4 s; `None` = never sent again.
    pub t1: Option<Duration>,
    /// Without an answer for so long the node is given up.
    pub attempt: Duration,
    /// Without an answer for so long (over all nodes) the request ends.
    pub whole: Duration,
    /// After a timeout or a 5xx: is another node asked? If not, a 5xx is the answer.
    pub failover: bool,
    /// Does a node that is given up, or says 5xx, count as down until somebody finds it up again?
    pub marks: bool,
    /// Pause when all nodes were asked in vain, before they are asked again.
    pub pause: Duration,
}

impl Patience {
    /// An SBC in front: T1 500 ms, 1.2 s a node, 15 s in all, then another node.
    #[must_use]
    pub fn sbc() -> Self {
        Patience {
            t1: Some(Duration::from_millis(500)),
            attempt: Duration::from_millis(1200),
            whole: Duration::from_secs(15),
            failover: true,
            marks: false,
            pause: Duration::from_millis(100),
        }
    }

    /// One node, retransmissions, no failover: what it says, or nothing within `whole`.
    #[must_use]
    pub fn direct(whole: Duration) -> Self {
        Patience { attempt: whole, whole, failover: false, ..Patience::sbc() }
    }

    /// One datagram, one answer or none.
    #[must_use]
    pub fn once(whole: Duration) -> Self {
        Patience { t1: None, ..Patience::direct(whole) }
    }
}

/// Who is asked (first).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The next node in turn.
    InTurn,
    /// The node at this place.
    Node(usize),
    /// The next node in turn that is not the one at this place, if there is one.
    Other(usize),
    /// Nobody else than this address, which may be no node.
    Address(SocketAddr),
}

/// A request to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's mark, handed back with the outcome.
    pub tag: u64,
    /// What to send.
    pub text: Text,
    /// Whom to ask.
    pub to: To,
    /// When it was due (open loop: the latency counts from here).
    pub due: Option<Instant>,
}

/// What the work wants next.
#[derive(Debug)]
pub enum Next {
    /// Start this at once.
    Start(Request),
    /// Nothing before this instant.
    Wait(Instant),
    /// No more; ends when the last follow-up is answered.
    Finished,
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The mark of the request.
    pub tag: u64,
    /// The node that answered, or that was asked last.
    pub node: SocketAddr,
    /// The final reply; `None` when none came in time.
    pub reply: Option<&'a Message<'a>>,
    /// Its place, or that of the node asked last.
    pub place: usize,
    /// Nodes that were asked.
    pub asked: u32,
    /// Datagrams sent, to all of them.
    pub sent: u32,
    /// When the first of them was sent.
    pub began: Instant,
    /// From the first send or the due time to the end.
    pub latency: Duration,
}

impl Outcome<'_> {
    /// The status of the final reply.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.reply.and_then(Message::status)
    }
}

/// Where requests come from and outcomes go to.
pub trait Work: Send {
    /// The next request, asked for whenever the window has room.
    fn next(&mut self) -> Next;
    /// A request ended; a follow-up is sent at once, in the same turn.
    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request>;
}

struct Slot {
    request: Option<Request>,
    generation: u32,
    node: usize,
    address: SocketAddr,
    tried: u64,
    asked: u32,
    sent: u32,
    datagram: Vec<u8>,
    /// When it was due.
    started: Instant,
    began: Instant,
    attempt_ends: Instant,
    again: Option<(Instant, Duration)>,
    /// All nodes refused: ask again at this instant.
    resume: Option<Instant>,
}

/// One socket at work.
pub struct Engine<W> {
    socket: UdpSocket,
    sent_by: String,
    nonce: u64,
    nodes: Arc<Nodes>,
    patience: Patience,
    work: W,
    slots: Vec<Slot>,
    /// The places that were used last are used next, so that the busy ones stay together at the low end.
    free: Vec<usize>,
    /// All slots from here on are free.
    busy_below: usize,
    stats: Stats,
}

/// Runs `work` over one socket with at most `window` requests in flight, until it is finished and all is answered.
///
/// # Errors
/// No socket, or a socket that fails for good.
pub async fn drive<W: Work>(
    nodes: Arc<Nodes>,
    patience: Patience,
    window: usize,
    work: W,
) -> anyhow::Result<(W, Stats)> {
    let socket = UdpSocket::bind(nodes.local()).await?;
    let sent_by = socket.local_addr()?.to_string();
    let window = window.clamp(1, WINDOW_MAX);
    let now = Instant::now();
    let slot = |_| Slot {
        request: None,
        generation: 0,
        node: 0,
        address: nodes.address(0),
        tried: 0,
        asked: 0,
        sent: 0,
        datagram: Vec::new(),
        started: now,
        began: now,
        attempt_ends: now,
        again: None,
        resume: None,
    };
    let slots = (0..window).map(slot).collect();
    let free = (0..window).rev().collect();
    let (nonce, stats) = (fastrand::u64(..), Stats::default());
    let engine = Engine { socket, sent_by, nonce, nodes, patience, work, slots, free, busy_below: 0, stats };
    engine.run().await
}

impl<W: Work> Engine<W> {
    async fn run(mut self) -> anyhow::Result<(W, Stats)> {
        let began = Instant::now();
        let mut buffer = vec![0_u8; 65_536];
        let (mut finished, mut wait_until, mut look_at) = (false, None::<Instant>, began);
        loop {
            let now = Instant::now();
            if wait_until.is_some_and(|at| at <= now) {
                wait_until = None;
            }
            while !finished && wait_until.is_none() && !self.free.is_empty() {
                match self.work.next() {
                    Next::Start(request) => self.start(request).await?,
                    Next::Wait(at) => wait_until = Some(at),
                    Next::Finished => finished = true,
                }
            }
            let idle = self.free.len() == self.slots.len();
            if finished && idle {
                break;
            }
            if self.receive(&mut buffer).await? == 0 {
                let until = wait_until.unwrap_or(now + LOOK).min(now + LOOK);
                tokio::select! {
                    readable = self.socket.readable() => readable?,
                    () = tokio::time::sleep_until(until.into()) => {}
                }
            } else {
                tokio::task::yield_now().await;
            }
            let now = Instant::now();
            if now >= look_at {
                look_at = now + LOOK;
                self.timers(now).await?;
            }
        }
        self.stats.elapsed = began.elapsed();
        Ok((self.work, self.stats))
    }

    async fn start(&mut self, request: Request) -> anyhow::Result<()> {
        let Some(index) = self.free.pop() else { anyhow::bail!("started beyond the window") };
        self.stats.started += 1;
        self.busy_below = self.busy_below.max(index + 1);
        let now = Instant::now();
        let slot = &mut self.slots[index];
        slot.started = request.due.unwrap_or(now);
        slot.began = now;
        (slot.tried, slot.asked, slot.sent, slot.resume) = (0, 0, 0, None);
        let to = request.to;
        slot.request = Some(request);
        match to {
            To::Address(address) => self.ask(index, address, now).await,
            To::Node(node) => self.ask_node(index, node, now).await,
            To::InTurn => self.ask_next(index, 0, now).await,
            To::Other(node) => self.ask_next(index, 1 << node, now).await,
        }
    }

    /// The next node in turn that was not tried; the first one when there is none.
    async fn ask_next(&mut self, index: usize, tried: u64, now: Instant) -> anyhow::Result<()> {
        let node = self.nodes.pick(tried).or_else(|| self.nodes.pick(0)).unwrap_or_default();
        self.ask_node(index, node, now).await
    }

    async fn ask_node(&mut self, index: usize, node: usize, now: Instant) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        slot.node = node;
        slot.tried |= 1 << node;
        let address = self.nodes.address(node);
        self.ask(index, address, now).await
    }

    /// Sends the request of a slot, in a new transaction.
    async fn ask(&mut self, index: usize, address: SocketAddr, now: Instant) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        let Some(request) = &slot.request else { return Ok(()) };
        slot.generation = slot.generation.wrapping_add(1);
        slot.address = address;
        slot.asked += 1;
        slot.attempt_ends = now + self.patience.attempt;
        slot.again = self.patience.t1.map(|t1| (now + t1, t1));
        slot.resume = None;
        let branch = format!("z9hG4bK.{index:x}.{:x}.{:x}", slot.generation, self.nonce);
        request.text.write(&self.sent_by, &branch, &mut slot.datagram);
        self.send(index).await
    }

    async fn send(&mut self, index: usize) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        slot.sent += 1;
        send_to(&self.socket, &slot.datagram, slot.address).await
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<usize> {
        for read in 0..BURST {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => self.reply(&buffer[..length], from).await?,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(read),
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(BURST)
    }

    async fn reply(&mut self, datagram: &[u8], from: SocketAddr) -> anyhow::Result<()> {
        let message = match Message::read(datagram) {
            Ok(message) => message,
            Err(why) => {
                self.stats.malformed.add(format!("{from}: {why} in {:?}", String::from_utf8_lossy(datagram)));
                return Ok(());
            }
        };
        let Some(index) = self.slot_of(&message, from) else {
            self.stats.stray += 1;
            return Ok(());
        };
        let slot = &self.slots[index];
        if let Err(why) = answers(&message, &slot.datagram) {
            self.stats.malformed.add(format!("{from}: {why} in {:?}", String::from_utf8_lossy(datagram)));
        }
        match message.status() {
            Some(status) if status < 200 => {
                self.slots[index].again = None;
                Ok(())
            }
            Some(status) if (500..600).contains(&status) && self.may_fail_over(index) => {
                self.fail_over(index, Instant::now()).await
            }
            _ => self.end(index, Some(&message)).await,
        }
    }

    /// The slot whose current transaction this is a reply of.
    fn slot_of(&self, message: &Message<'_>, from: SocketAddr) -> Option<usize> {
        let via = message.raw("Via").next()?;
        let branch = via.split_once(";branch=z9hG4bK.")?.1;
        let branch = branch.split([';', ',', ' ']).next()?;
        let mut parts = branch.split('.').map(|p| u64::from_str_radix(p, 16).ok());
        let index = usize::try_from(parts.next()??).ok()?;
        let (generation, nonce) = (parts.next()??, parts.next()??);
        let slot = self.slots.get(index)?;
        let ours = slot.request.is_some()
            && slot.resume.is_none()
            && u64::from(slot.generation) == generation
            && nonce == self.nonce
            && slot.address == from;
        ours.then_some(index)
    }

    async fn end(&mut self, index: usize, reply: Option<&Message<'_>>) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        let Some(request) = slot.request.take() else { return Ok(()) };
        let latency = slot.started.elapsed();
        let outcome = Outcome {
            tag: request.tag,
            node: slot.address,
            place: slot.node,
            reply,
            asked: slot.asked,
            sent: slot.sent,
            began: slot.began,
            latency,
        };
        match outcome.status() {
            Some(status) => {
                self.stats.answered += 1;
                *self.stats.by_status.entry(status).or_default() += 1;
                self.stats.latency.add(latency);
            }
            None => self.stats.timed_out += 1,
        }
        if request.text.start.starts_with("INVITE ") {
            self.ack(index, reply).await?;
        }
        self.free.push(index);
        match self.work.done(&outcome) {
            Some(next) => self.start(next).await,
            None => Ok(()),
        }
    }

    /// The ACK of a final reply: in the INVITE's transaction, or end to end when it is a 2xx.
    async fn ack(&self, index: usize, reply: Option<&Message<'_>>) -> anyhow::Result<()> {
        let Some(reply) = reply else { return Ok(()) };
        let slot = &self.slots[index];
        let accepted = reply.status().is_some_and(|status| status < 300);
        let ack = if accepted { ack_of_2xx(&slot.datagram, reply) } else { ack_of(&slot.datagram, reply) };
        let Some(ack) = ack else { return Ok(()) };
        send_to(&self.socket, &ack, slot.address).await
    }

    async fn timers(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut busy_below = 0;
        for index in 0..self.busy_below {
            if self.slots[index].request.is_none() {
                continue;
            }
            self.timer(index, now).await?;
            if self.slots[index].request.is_some() {
                busy_below = index + 1;
            }
        }
        // A follow-up may have begun meanwhile, at any place.
        let began = self.slots[busy_below..self.busy_below].iter().rposition(|slot| slot.request.is_some());
        self.busy_below = began.map_or(busy_below, |beyond| busy_below + beyond + 1);
        Ok(())
    }

    async fn timer(&mut self, index: usize, now: Instant) -> anyhow::Result<()> {
        let may_fail_over = self.may_fail_over(index);
        let slot = &mut self.slots[index];
        if now >= slot.began + self.patience.whole {
            return self.end(index, None).await;
        }
        if let Some(at) = slot.resume {
            if now >= at {
                slot.tried = 0;
                return self.ask_next(index, 0, now).await;
            }
        } else if now >= slot.attempt_ends && may_fail_over {
            return self.fail_over(index, now).await;
        } else if let Some((at, gap)) = slot.again
            && now >= at
        {
            let gap = (gap * 2).min(T2);
            slot.again = Some((now + gap, gap));
            self.stats.retransmitted += 1;
            return self.send(index).await;
        }
        Ok(())
    }

    fn may_fail_over(&self, index: usize) -> bool {
        let elsewhere = |request: &Request| matches!(request.to, To::Address(_));
        self.patience.failover && !self.slots[index].request.as_ref().is_some_and(elsewhere)
    }

    async fn fail_over(&mut self, index: usize, now: Instant) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        if self.patience.marks {
            self.nodes.set_up(slot.node, false);
        }
        match self.nodes.pick(slot.tried) {
            Some(node) => {
                self.stats.failed_over += 1;
                self.ask_node(index, node, now).await
            }
            None => {
                slot.resume = Some(now + self.patience.pause);
                Ok(())
            }
        }
    }
}

/// A refused datagram is a lost one: the timers know what to do.
async fn send_to(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> anyhow::Result<()> {
    match socket.send_to(datagram, to).await {
        Err(e) if !is_passing(&e) => Err(e.into()),
        _ => Ok(()),
    }
}
