//! N phones and what each was told: registers, refreshes, removes, asks and calls them, and judges every answer.
//!
//! The fleet stands where an SBC stands: many phones behind few sockets, failover to another node on silence or 5xx.
//! What it believes comes only from SIP that it sent and received.

use crate::engine::{Patience, WINDOW_MAX, drive};
use crate::nodes::Nodes;
use crate::phone::{Household, Phone};
use crate::stats::Stats;
use crate::sweep::{Pacing, Sweep};
use crate::verdict::{Listed, Mismatches};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

/// Phones at most in one fleet.
pub const PHONES_MAX: usize = 10_000_000;

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
    /// Should the contacts be live now?
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.remaining(Instant::now(), 1) != Listed::None
    }

    /// Remaining seconds that a node may name now, `slack_s` off each way.
    pub(crate) fn remaining(&self, now: Instant, slack_s: u32) -> Listed {
        match self.granted {
            Some((at, seconds)) if at.elapsed().as_secs() < u64::from(seconds) => {
                let gone = now.saturating_duration_since(at).as_secs_f64();
                let left = f64::from(seconds) - gone;
                let (least, most) = (left.floor() as u32, left.ceil() as u32);
                Listed::All { least: least.saturating_sub(slack_s), most: most.saturating_add(slack_s) }
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
    /// Seconds that a remaining time may be off, each way.
    pub slack_s: u32,
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
        Load { sockets: 4, window: 32, patience: Patience::sbc(), no_binding_status: 404, first: None, slack_s: 1 }
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
        (0..self.len()).filter(|&i| self.lines[i].is_bound()).map(|i| self.phone(i).contacts.len()).sum()
    }

    /// The phones that should be bound now.
    #[must_use]
    pub fn bound(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.lines[i].is_bound()).collect()
    }

    /// Takes up a fleet where another process left it: all phones bound for `seconds` from now, their next CSeq above
    /// `cseq`.
    pub fn resume(&mut self, cseq: u32, seconds: Option<u32>) {
        let granted = seconds.map(|s| (Instant::now(), s));
        self.lines.fill(Line { cseq, granted, status: 0 });
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
                slack_s: self.load.slack_s,
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
