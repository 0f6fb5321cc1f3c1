//! What the demo plays with: nodes, phones, their edge, an SBC; and the questions that several steps ask. The order of
//! events is not here.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aorta_phones::fleet::Report;
use aorta_phones::{Calls, Edge, Fleet as Phones, Household, Nodes, Pace, Sbc, Timers, Turn, judges};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::super::fleet::Fleet;
use super::super::layout;
use super::super::status::Survey;
use super::show::{Show, many};

/// Nodes that there are places for; the last one starts late.
const NODES: usize = 4;

/// Phones that register while a node is away, beside the others.
pub(super) const NEWCOMERS: usize = 300;

/// What differs from a node's defaults: the drain need only outlast this SBC's probes, and the demo is short.
const SETTINGS: &str = "drain_grace_s = 2\nsnapshot_interval_ms = 500\n";

/// Everything that phones do is decided by this.
const SEED: u64 = 3261;

/// How long nodes may take to be of one mind once nothing changes any more.
const AGREE_WITHIN: Duration = Duration::from_secs(5);

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The SBC's timers: half a second until a silent node is passed over, as in `deploy/sbc`.
pub(super) fn timers() -> Timers {
    Timers::default()
}

/// Nodes, phones and an SBC.
pub(super) struct Stage {
    pub(super) nodes: Fleet,
    pub(super) phones: Phones,
    /// Phones that register at first; those above are the newcomers.
    pub(super) first: usize,
    /// Bytes that the restarted node received to catch up.
    pub(super) caught_up_bytes: f64,
    runtime: Runtime,
    edge: Edge,
    sbc: Option<Sbc>,
    registers: u64,
    lookups: u64,
    calls: u64,
}

impl Stage {
    /// Writes the nodes' configurations; starts nothing but the phones' edge.
    pub(super) fn set(program: &Path, dir: &Path, phones: usize, show: &Show) -> anyhow::Result<Self> {
        let ports = layout::free_ports(NODES)?;
        let places = layout::write(dir, &ports, SETTINGS)?;
        // Those that start the cluster know of nobody else: they would give a fourth seed its time to answer.
        layout::write(dir, ports.get(..NODES - 1).unwrap_or(&ports), SETTINGS)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the phones")?;
        let edge = runtime.block_on(Edge::start())?;
        let household = Household { edge: Some(edge.address()), ..Household::new(SEED) };
        let mut fleet = Phones::new(household, phones + NEWCOMERS);
        let bar = show.bar();
        fleet.on_progress(move |done, all| {
            bar.set_length(u64::try_from(all).unwrap_or(u64::MAX));
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        });
        Ok(Self {
            nodes: Fleet::new(program, places),
            phones: fleet,
            first: phones,
            caught_up_bytes: 0.0,
            runtime,
            edge,
            sbc: None,
            registers: 0,
            lookups: 0,
            calls: 0,
        })
    }

    /// SIP addresses of these nodes.
    pub(super) fn sip(&self, nodes: &[usize]) -> Vec<SocketAddr> {
        nodes.iter().map(|index| self.nodes.nodes()[*index].place.sip).collect()
    }

    /// Whether something runs inside of it that needs the phones' runtime.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// One request of each of these phones, spread over these nodes; every answer must be right.
    pub(super) fn turn(&mut self, turn: Turn, who: std::ops::Range<usize>, nodes: &[usize]) -> anyhow::Result<Report> {
        let nodes = Arc::new(Nodes::new(&self.sip(nodes))?);
        let report = self.runtime.block_on(self.phones.turn(turn, who, &nodes))?;
        anyhow::ensure!(report.is_clean(), "not every answer was right: {report}");
        self.registers += report.stats.answered;
        Ok(report)
    }

    /// Asks each of these nodes for every phone, registered or not; all must answer exactly what the phones sent.
    pub(super) fn all_know_all(&mut self, nodes: &[usize]) -> anyhow::Result<usize> {
        let addresses = self.sip(nodes);
        let asked = judges::everyone_answers_for_all(&mut self.phones, &addresses, Turn::Lookup);
        let mut answers = 0;
        for (node, report) in self.runtime.block_on(asked)? {
            let wrong = report.mismatches.count + report.stats.malformed.count + report.stats.timed_out;
            let asked = report.stats.started;
            anyhow::ensure!(report.is_clean(), "{node} was wrong {wrong} times, asked {asked} times\n{report}");
            answers += usize::try_from(report.stats.answered)?;
        }
        self.lookups += u64::try_from(answers)?;
        Ok(answers)
    }

    /// Waits until these nodes, and all that they know, agree on who is there and what is stored.
    pub(super) fn agree(&self, nodes: &[usize]) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGREE_WITHIN;
        loop {
            let survey = Survey::take(&self.nodes.nodes()[nodes[0]].client())?;
            let mut differences = survey.disagreements();
            if survey.len() != nodes.len() {
                differences.push(format!("{} nodes are known, {} run", survey.len(), nodes.len()));
            }
            if differences.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the nodes do not agree: {}", differences.join("; "));
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Live contacts that each of these nodes counts must be what the phones were told.
    pub(super) fn contacts(&self, nodes: &[usize]) -> anyhow::Result<usize> {
        let expected = self.phones.live_contacts();
        for index in nodes {
            let view = self.nodes.nodes()[*index].client().cluster()?;
            let found = usize::try_from(view.contacts)?;
            anyhow::ensure!(found == expected, "{} holds {} contacts, not {}", view.node, many(found), many(expected));
        }
        Ok(expected)
    }

    /// The SBC calls phones that are registered, through these nodes in turn, until told to stop or for so long.
    pub(super) fn call(&mut self, nodes: &[usize], pace: &Pace) -> anyhow::Result<JoinHandle<Calls>> {
        let nodes = Arc::new(Nodes::new(&self.sip(nodes))?);
        let sbc = self.runtime.block_on(Sbc::start(nodes, timers()))?;
        let calls = sbc.calls(self.phones.household(), self.phones.bound(), pace);
        self.sbc = Some(sbc);
        Ok(self.runtime.spawn(calls))
    }

    /// What became of the calls; every one must have been completed, by a right redirect.
    pub(super) fn ended(&mut self, calls: JoinHandle<Calls>) -> anyhow::Result<Calls> {
        let calls = self.runtime.block_on(calls)?;
        self.sbc = None;
        let failed = calls.tried - calls.completed;
        anyhow::ensure!(calls.is_clean(), "{failed} of {} calls failed: {calls}", calls.tried);
        let complaints = self.edge.complaints();
        let first = complaints.examples.first().cloned().unwrap_or_default();
        anyhow::ensure!(complaints.is_empty(), "{} calls came to the phones in a wrong way: {first}", complaints.count);
        self.calls += calls.tried;
        Ok(calls)
    }

    /// Ends what still runs.
    pub(super) fn close(&mut self) {
        self.sbc = None;
        for index in 0..self.nodes.nodes().len() {
            let _ = self.nodes.kill(index);
        }
    }

    /// What was asked in all.
    pub(super) fn tally(&self) -> String {
        format!(
            "{} registrations, {} lookups and {} calls were answered, every one of them right.",
            many(usize::try_from(self.registers).unwrap_or_default()),
            many(usize::try_from(self.lookups).unwrap_or_default()),
            many(usize::try_from(self.calls).unwrap_or_default()),
        )
    }
}
