//! N phones and what each was told: registers, refreshes, removes, asks and calls them, and judges every answer.
//!
//! The fleet stands where an SBC stands: many phones behind few sockets, failover to another node on silence or 5xx.
//! What it believes comes only from SIP that it sent and received.

use crate::engine::{Next, Outcome, Patience, Request, WINDOW_MAX, Work, drive};
use crate::nodes::Nodes;
use crate::phone::{Ask, Household, Phone};
use crate::stats::Stats;
use crate::verdict::{Judged, Listed, Mismatch, Mismatches, judge_absent, judge_redirect, judge_register};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Phones at most in one fleet.
pub const PHONES_MAX: usize = 10_000_000;
/// The progress callback is called once in so many answers.
const PROGRESS_EVERY: usize = 512;

/// What one phone was told last, and what follows from it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// CSeq of its last REGISTER.
    pub cseq: u32,
    /// Since when its contacts are bound and for how many seconds, by the last 200; `None` = not bound.
    pub granted: Option<(Instant, u32)>,
    /// Status of the last answer to a REGISTER (0 = none came): then what the nodes hold is not known.
    pub status: u16,
}

impl Line {
    /// Remaining seconds that a node may name now: a second off each way.
    fn remaining(&self, now: Instant) -> Listed {
        match self.granted {
            Some((at, seconds)) if at.elapsed().as_secs() < u64::from(seconds) => {
                let gone = now.saturating_duration_since(at).as_secs_f64();
                let left = f64::from(seconds) - gone;
                Listed::All { least: (left - 2.0).max(0.0) as u32, most: (left + 1.0).ceil() as u32 }
            }
            _ => Listed::None,
        }
    }
}

/// How hard a fleet pushes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Sockets, each a task of its own.
    pub sockets: usize,
    /// Requests in flight per socket. The receive buffers of a stock kernel hold about 150 requests or replies.
    pub window: usize,
    /// How long requests wait.
    pub patience: Patience,
    /// What an INVITE for nobody gets: 404 or 480.
    pub no_binding_status: u16,
    /// The node (by place in the list) that is asked first, always; `None` = in turn.
    pub first: Option<usize>,
}

/// An open loop: so many requests a second, whatever the answers.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Requests a second, over all sockets.
    pub per_second: u32,
    /// Ends after this.
    pub longest: Duration,
    /// Ends when this becomes true.
    pub stop: Arc<AtomicBool>,
}

impl Pace {
    /// So many a second for so long.
    #[must_use]
    pub fn new(per_second: u32, longest: Duration) -> Self {
        Pace { per_second, longest, stop: Arc::default() }
    }
}

impl Default for Load {
    fn default() -> Self {
        Load { sockets: 4, window: 32, patience: Patience::sbc(), no_binding_status: 404, first: None }
    }
}

/// What one sweep over phones found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Counts and latencies.
    pub stats: Stats,
    /// Answers that were not right, silence included.
    pub mismatches: Mismatches,
}

impl Report {
    /// Every request was answered, and rightly.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.mismatches.is_empty() && self.stats.malformed.is_empty() && self.stats.timed_out == 0
    }

    /// Adds another sweep, made at the same time or after.
    pub fn merge(&mut self, other: Report) {
        self.stats.merge(other.stats);
        self.mismatches.merge(other.mismatches);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.stats, self.mismatches)
    }
}

/// What to do with each phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// REGISTER all contacts for so many seconds (first time or refresh).
    Register(u32),
    /// REGISTER each contact with expires 0.
    Unregister,
    /// REGISTER `*`.
    Clear,
    /// REGISTER without Contact, judged against what the phone was told last.
    Query,
    /// INVITE, judged against what the phone was told last.
    Lookup,
}

/// Called with (phones done, phones in all).
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// N phones.
pub struct Fleet {
    household: Arc<Household>,
    lines: Vec<Line>,
    /// How hard this fleet pushes; may be changed between turns.
    pub load: Load,
    progress: Option<Progress>,
}

impl Fleet {
    /// `count` phones, none registered.
    #[must_use]
    pub fn new(household: Household, count: usize) -> Self {
        let lines = vec![Line::default(); count.min(PHONES_MAX)];
        Fleet { household: Arc::new(household), lines, load: Load::default(), progress: None }
    }

    /// Calls `progress` from time to time during each turn, on any thread.
    pub fn on_progress(&mut self, progress: impl Fn(usize, usize) + Send + Sync + 'static) {
        self.progress = Some(Arc::new(progress));
    }

    /// Phones in the fleet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// No phone at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// One phone.
    #[must_use]
    pub fn phone(&self, index: usize) -> Phone {
        Phone::new(&self.household, index)
    }

    /// What a phone was told last.
    #[must_use]
    pub fn line(&self, index: usize) -> &Line {
        &self.lines[index]
    }

    /// Contacts that should be live now, over all phones.
    #[must_use]
    pub fn live_contacts(&self) -> usize {
        let live = |l: &Line| l.remaining(Instant::now()) != Listed::None;
        (0..self.len()).filter(|&i| live(&self.lines[i])).map(|i| self.phone(i).contacts.len()).sum()
    }

    /// A copy of what a ticker or a judge needs while the fleet goes on: the phones that are bound now.
    #[must_use]
    pub fn bound(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.lines[i].remaining(Instant::now()) != Listed::None).collect()
    }

    /// What all its phones have in common.
    #[must_use]
    pub fn household(&self) -> &Arc<Household> {
        &self.household
    }

    /// One request of each of these phones, spread over all nodes in turn, as fast as the window allows.
    ///
    /// # Errors
    /// No socket; what nodes do wrong is in the report.
    pub async fn turn(
        &mut self,
        turn: Turn,
        who: impl IntoIterator<Item = usize>,
        nodes: &Arc<Nodes>,
    ) -> anyhow::Result<Report> {
        self.sweep(vec![turn], who.into_iter().collect(), None, nodes).await
    }

    /// Requests of these phones at a steady pace, the `turns` one after the other, round and round; no phone has two
    /// requests open. Latencies count from the due time.
    ///
    /// # Errors
    /// No socket; what nodes do wrong is in the report.
    pub async fn steady(
        &mut self,
        turns: &[Turn],
        who: impl IntoIterator<Item = usize>,
        pace: &Pace,
        nodes: &Arc<Nodes>,
    ) -> anyhow::Result<Report> {
        self.sweep(turns.to_vec(), who.into_iter().collect(), Some(pace.clone()), nodes).await
    }

    async fn sweep(
        &mut self,
        turns: Vec<Turn>,
        who: Vec<usize>,
        pace: Option<Pace>,
        nodes: &Arc<Nodes>,
    ) -> anyhow::Result<Report> {
        anyhow::ensure!(!turns.is_empty(), "no turn to take");
        let sockets = self.load.sockets.clamp(1, who.len().max(1));
        let window = if pace.is_some() { WINDOW_MAX } else { self.load.window };
        let done = Arc::new(AtomicUsize::new(0));
        let mut shares: Vec<Vec<(usize, Line)>> = vec![Vec::new(); sockets];
        for (nth, &index) in who.iter().enumerate() {
            shares[nth % sockets].push((index, self.lines[index]));
        }
        let began = Instant::now();
        let mut tasks = Vec::new();
        for share in shares {
            let work = Sweep {
                turns: turns.clone(),
                household: self.household.clone(),
                busy: vec![false; share.len()],
                share,
                next: 0,
                pace: pace.clone().map(|pace| {
                    let gap = Duration::from_secs(1) * sockets as u32 / pace.per_second.max(1);
                    Pacing { ends: began + pace.longest, due: began, gap, stop: pace.stop }
                }),
                first: self.load.first,
                absent: self.load.no_binding_status,
                mismatches: Mismatches::default(),
                progress: self.progress.clone(),
                done: done.clone(),
                total: who.len(),
            };
            tasks.push(tokio::spawn(drive(nodes.clone(), self.load.patience, window, work)));
        }
        let mut report = Report::default();
        for task in tasks {
            let (work, stats) = task.await??;
            report.stats.merge(stats);
            report.mismatches.merge(work.mismatches);
            for (index, line) in work.share {
                self.lines[index] = line;
            }
        }
        if let Some(progress) = &self.progress {
            progress(who.len(), who.len());
        }
        Ok(report)
    }

    /// Registers all phones for `seconds`, spread over `nodes`.
    ///
    /// # Errors
    /// See [`Fleet::turn`].
    pub async fn register(&mut self, seconds: u32, nodes: &[SocketAddr]) -> anyhow::Result<Report> {
        self.turn(Turn::Register(seconds), 0..self.len(), &Arc::new(Nodes::new(nodes)?)).await
    }
}

/// When the next request of an open loop is due.
struct Pacing {
    ends: Instant,
    due: Instant,
    gap: Duration,
    stop: Arc<AtomicBool>,
}

/// The work of one socket.
struct Sweep {
    turns: Vec<Turn>,
    household: Arc<Household>,
    share: Vec<(usize, Line)>,
    busy: Vec<bool>,
    /// Requests started.
    next: usize,
    pace: Option<Pacing>,
    first: Option<usize>,
    absent: u16,
    mismatches: Mismatches,
    progress: Option<Progress>,
    done: Arc<AtomicUsize>,
    total: usize,
}

impl Sweep {
    /// (place of the next phone, its due time), or what to do instead.
    fn choose(&mut self) -> Result<(usize, Option<Instant>), Next> {
        let Some(pace) = &mut self.pace else {
            return if self.next < self.share.len() { Ok((self.next, None)) } else { Err(Next::Finished) };
        };
        let now = Instant::now();
        if now >= pace.ends || pace.stop.load(Ordering::Relaxed) || self.share.is_empty() {
            return Err(Next::Finished);
        }
        if pace.due > now {
            return Err(Next::Wait(pace.due));
        }
        let length = self.share.len();
        let Some(place) = (0..length).map(|n| (self.next + n) % length).find(|&p| !self.busy[p]) else {
            // Every phone is waiting for an answer: the loop falls behind, which the latencies show.
            return Err(Next::Wait(now + Duration::from_millis(1)));
        };
        let due = pace.due;
        pace.due += pace.gap;
        Ok((place, Some(due)))
    }
}

impl Work for Sweep {
    fn next(&mut self) -> Next {
        let (place, due) = match self.choose() {
            Ok(chosen) => chosen,
            Err(instead) => return instead,
        };
        let nth = if self.pace.is_some() { self.next % self.turns.len() } else { 0 };
        self.next += 1;
        self.busy[place] = true;
        let (index, line) = &mut self.share[place];
        let phone = Phone::new(&self.household, *index);
        let text = match self.turns[nth] {
            Turn::Lookup => phone.called("INVITE", fastrand::u64(..)),
            turn => {
                line.cseq += 1;
                phone.register(turn.ask(), line.cseq)
            }
        };
        Next::Start(Request { tag: (place * self.turns.len() + nth) as u64, text, to: self.first, due })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let (place, nth) = (outcome.tag as usize / self.turns.len(), outcome.tag as usize % self.turns.len());
        let (index, line) = &mut self.share[place];
        let turn = self.turns[nth];
        self.busy[place] = false;
        let phone = Phone::new(&self.household, *index);
        if let Err((expected, got)) = judge(turn, &phone, line, outcome, self.absent) {
            self.mismatches.add(Mismatch { node: outcome.node, aor: phone.aor, expected, got });
        }
        line.learn(turn, outcome);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = &self.progress
            && done.is_multiple_of(PROGRESS_EVERY)
        {
            progress(done.min(self.total), self.total);
        }
        None
    }
}

impl Turn {
    fn ask(self) -> Ask {
        match self {
            Turn::Register(seconds) => Ask::Bind(seconds),
            Turn::Unregister => Ask::Unbind,
            Turn::Clear => Ask::Clear,
            Turn::Query | Turn::Lookup => Ask::Query,
        }
    }
}

impl Line {
    fn learn(&mut self, turn: Turn, outcome: &Outcome<'_>) {
        if turn == Turn::Lookup || turn == Turn::Query {
            return;
        }
        self.status = outcome.status().unwrap_or_default();
        if self.status != 200 {
            return;
        }
        self.granted = match turn {
            Turn::Register(asked) => {
                // The node's word counts: it may grant less than asked.
                let told = outcome.reply.and_then(|r| r.contacts().ok());
                let least = told.and_then(|c| c.iter().filter_map(|c| c.expires().ok().flatten()).min());
                Some((Instant::now(), least.unwrap_or(asked)))
            }
            _ => None,
        };
    }
}

pub(crate) fn judge(turn: Turn, phone: &Phone, line: &Line, outcome: &Outcome<'_>, absent: u16) -> Judged {
    let Some(reply) = outcome.reply else {
        return Err(("an answer".to_owned(), format!("none in {:?} from {} tries", outcome.latency, outcome.asked)));
    };
    let now = line.remaining(Instant::now());
    match turn {
        // One second may pass between the grant and the words.
        Turn::Register(asked) => {
            judge_register(phone, reply, Listed::All { least: asked.saturating_sub(1), most: asked }, true)
        }
        Turn::Unregister | Turn::Clear => judge_register(phone, reply, Listed::None, false),
        Turn::Query => judge_register(phone, reply, now, false),
        Turn::Lookup if now == Listed::None => judge_absent(reply, absent),
        Turn::Lookup => judge_redirect(phone, reply),
    }
}
