//! Judges: what a cluster must do, as functions over the SIP addresses of its nodes. Each returns counts, never panics.

use crate::engine::{Next, Outcome, Patience, Request, To, Work, drive};
use crate::fleet::{Fleet, Report, Turn};
use crate::message::Message;
use crate::nodes::Nodes;
use crate::phone::{Ask, Household, Phone};
use crate::stats::{Latency, Stats};
use crate::verdict::{Judged, Listed, Mismatch, Mismatches, judge_absent, judge_redirect, judge_register};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Longest wait for one node's word about one phone.
const WORD: Duration = Duration::from_secs(5);
/// A node that has not answered a tick for so long is silent.
const TICK_WAIT: Duration = Duration::from_secs(1);

/// Asks every node about every phone of the fleet, by `turn` ([`Turn::Lookup`] or [`Turn::Query`]): each must say
/// exactly what that phone sent, or that nobody is there. One report per node.
///
/// # Errors
/// No socket.
pub async fn everyone_answers_for_all(
    fleet: &mut Fleet,
    nodes: &[SocketAddr],
    turn: Turn,
) -> anyhow::Result<Vec<(SocketAddr, Report)>> {
    let patience = std::mem::replace(&mut fleet.load.patience, Patience::direct(WORD));
    let mut reports = Vec::new();
    for node in nodes {
        let one = Arc::new(Nodes::new(&[*node])?);
        let report = fleet.turn(turn, 0..fleet.len(), &one).await;
        reports.push((*node, report?));
    }
    fleet.load.patience = patience;
    Ok(reports)
}

/// Register at one node and, at once after its 200, unregister at another.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    /// Phones.
    pub count: usize,
    /// Pairs of requests in flight.
    pub in_flight: usize,
    /// Takes the REGISTERs.
    pub first: SocketAddr,
    /// Takes the removals.
    pub second: SocketAddr,
}

/// What came of [`Elsewhere`].
#[derive(Debug, Clone, Default)]
pub struct ElsewhereReport {
    /// First 200s that list exactly what was registered.
    pub listed: usize,
    /// Removals answered 200 with no contact left.
    pub removed: usize,
    /// Phones of which a node still shows something (each node asked by INVITE and by query).
    pub left: u64,
    /// Everything that was not right.
    pub mismatches: Mismatches,
    /// The pairs' counts and latencies.
    pub stats: Stats,
    /// From reading a 200 to sending its removal.
    pub gap: Latency,
}

struct Pairs {
    household: Household,
    plan: Elsewhere,
    next: usize,
    report: ElsewhereReport,
}

/// Seconds that the short-lived contacts of [`Elsewhere`] ask for.
const PAIR_S: u32 = 3600;

impl Work for Pairs {
    fn next(&mut self) -> Next {
        if self.next == self.plan.count {
            return Next::Finished;
        }
        self.next += 1;
        let phone = Phone::new(&self.household, self.next - 1);
        let text = phone.register(Ask::Bind(PAIR_S), 1);
        Next::Start(Request { tag: (self.next as u64 - 1) * 2, text, to: To::Node(0), due: None })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let read = Instant::now();
        let phone = Phone::new(&self.household, (outcome.tag / 2) as usize);
        let removal = outcome.tag % 2 == 1;
        let listed = if removal { Listed::None } else { Listed::All { least: PAIR_S - 1, most: PAIR_S } };
        let judged = match outcome.reply {
            Some(reply) => judge_register(&phone, reply, listed, !removal),
            None => Err(("an answer".to_owned(), format!("none in {:?}", outcome.latency))),
        };
        match judged {
            Ok(()) if removal => self.report.removed += 1,
            Ok(()) => self.report.listed += 1,
            Err((expected, got)) => {
                self.report.mismatches.add(Mismatch { node: outcome.node, aor: phone.aor.clone(), expected, got });
            }
        }
        if removal || outcome.status() != Some(200) {
            return None;
        }
        let text = phone.register(Ask::Unbind, 2);
        self.report.gap.add(read.elapsed());
        Some(Request { tag: outcome.tag + 1, text, to: To::Node(1), due: None })
    }
}

/// Runs [`Elsewhere`] with the (fresh) phones of `household`, then asks every node of `all` what is left.
///
/// # Errors
/// No socket.
pub async fn register_then_unregister_elsewhere(
    household: &Household,
    plan: Elsewhere,
    all: &[SocketAddr],
) -> anyhow::Result<ElsewhereReport> {
    let nodes = Arc::new(Nodes::new(&[plan.first, plan.second])?);
    let pairs = Pairs { household: household.clone(), plan, next: 0, report: ElsewhereReport::default() };
    let (pairs, stats) = drive(nodes, Patience::direct(WORD), plan.in_flight, pairs).await?;
    let mut report = ElsewhereReport { stats, ..pairs.report };
    let mut nobody = Fleet::new(household.clone(), plan.count);
    for turn in [Turn::Lookup, Turn::Query] {
        for (_, said) in everyone_answers_for_all(&mut nobody, all, turn).await? {
            report.left += said.mismatches.count + said.stats.malformed.count;
            report.mismatches.merge(said.mismatches);
        }
    }
    Ok(report)
}

/// What the phones that a [`Ticker`] calls are, and so what a ready node must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Bound: a right redirect.
    Bound,
    /// Removed or lapsed: this status (404 or 480).
    Gone(u16),
}

/// Whom a [`Ticker`] calls, where and how often.
#[derive(Debug, Clone)]
pub struct TickPlan {
    /// The one node that is called; it need not run yet.
    pub node: SocketAddr,
    /// Phones, one chosen at random each time.
    pub who: Vec<usize>,
    /// What they are.
    pub expect: Expect,
    /// Time between two calls.
    pub every: Duration,
    /// Ends by itself after this.
    pub longest: Duration,
}

/// What a node said to the calls of a [`Ticker`].
#[derive(Debug, Clone, Default)]
pub struct TickReport {
    /// INVITEs sent.
    pub sent: u64,
    /// Not answered within a second: the node did not listen yet, or slept.
    pub silent: u64,
    /// 503: not ready, which is a right answer.
    pub not_ready: u64,
    /// Right answers of a ready node.
    pub right: u64,
    /// Anything else: a 404 for a registered phone, a wrong contact, a removed one.
    pub wrong: Mismatches,
    /// From the start of the ticker to the arrival of the first right answer.
    pub first_right: Option<Duration>,
    /// Counts and latencies.
    pub stats: Stats,
}

/// Calls a random registered phone at one node every so often, from before the node's start on.
#[derive(Debug)]
pub struct Ticker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<TickReport>>,
}

struct Ticks {
    household: Arc<Household>,
    plan: TickPlan,
    began: Instant,
    due: Instant,
    stop: Arc<AtomicBool>,
    report: TickReport,
}

impl Expect {
    fn judge(self, phone: &Phone, reply: &Message<'_>) -> Judged {
        match self {
            Expect::Bound => judge_redirect(phone, reply),
            Expect::Gone(status) => judge_absent(reply, status),
        }
    }
}

impl Work for Ticks {
    fn next(&mut self) -> Next {
        let now = Instant::now();
        // Calls that are late are made all the same: a busy machine does not make them fewer.
        let over = self.due >= self.began + self.plan.longest;
        if self.stop.load(Ordering::Relaxed) || over || self.plan.who.is_empty() {
            return Next::Finished;
        }
        if self.due > now {
            return Next::Wait(self.due);
        }
        self.due += self.plan.every;
        self.report.sent += 1;
        let index = self.plan.who[fastrand::usize(..self.plan.who.len())];
        let text = Phone::new(&self.household, index).called("INVITE", fastrand::u64(..));
        Next::Start(Request { tag: index as u64, text, to: To::Node(0), due: None })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let phone = Phone::new(&self.household, outcome.tag as usize);
        match outcome.reply {
            None => self.report.silent += 1,
            Some(reply) if reply.status() == Some(503) => self.report.not_ready += 1,
            Some(reply) => match self.plan.expect.judge(&phone, reply) {
                Ok(()) => {
                    self.report.right += 1;
                    self.report.first_right.get_or_insert(self.began.elapsed());
                }
                Err((expected, got)) => {
                    self.report.wrong.add(Mismatch { node: outcome.node, aor: phone.aor, expected, got });
                }
            },
        }
        None
    }
}

impl Ticker {
    /// Starts to call, until stopped or for `plan.longest`.
    ///
    /// # Errors
    /// An address that is not loopback.
    pub fn start(household: &Arc<Household>, plan: TickPlan) -> anyhow::Result<Ticker> {
        let nodes = Arc::new(Nodes::new(&[plan.node])?);
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let window = (TICK_WAIT.as_micros() / plan.every.as_micros().max(1)) as usize + 64;
        let (household, report) = (household.clone(), TickReport::default());
        let ticks = Ticks { household, plan, began, due: began, stop: stop.clone(), report };
        let task = tokio::spawn(async move {
            let (ticks, stats) = drive(nodes, Patience::once(TICK_WAIT), window, ticks).await?;
            Ok(TickReport { stats, ..ticks.report })
        });
        Ok(Ticker { stop, task })
    }

    /// Stops, waits for the last answers (at most a second) and says what was said.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn stop(self) -> anyhow::Result<TickReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }

    /// Waits until it has called for as long as it was told to, and says what was said.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn run_out(self) -> anyhow::Result<TickReport> {
        self.task.await?
    }
}
