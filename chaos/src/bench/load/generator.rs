//! The loop of the load: receive, answer by the next request, send what is due, send again what is late.

use std::net::SocketAddrV4;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::time::{ClockId, clock_gettime};

use super::flight::{Flight, Kind, Late, Request};
use super::message::{self, Template, Values};
use super::pace::Schedule;
use super::sockets::{Batch, Sockets, v4};
use super::tally::Tally;
use super::{Board, Pace, Population, Work};

/// Between two searches for requests that wait too long, nanoseconds.
const LATE_EVERY_NS: u64 = 50_000_000;
/// Requests of an open loop between two receptions at most, so that neither waits for the other.
const DUE_AT_ONCE: usize = 32;
/// Longest wait for answers after the load was taken off, nanoseconds.
const FAREWELL_NS: u64 = 1_000_000_000;

/// What waits to be sent, by text and target.
struct Outbox {
    templates: [Template; 4],
    batches: [Vec<Batch>; 4],
}

/// Texts, by their place in the outbox.
const REGISTER: usize = 0;
const QUERY: usize = 1;
const INVITE: usize = 2;
const ACK: usize = 3;

impl Outbox {
    fn new(targets: &[SocketAddrV4]) -> anyhow::Result<Self> {
        let templates = [
            Template::new(message::REGISTER)?,
            Template::new(message::QUERY)?,
            Template::new(message::INVITE)?,
            Template::new(message::ACK)?,
        ];
        let batches = templates.each_ref().map(|template| {
            let batch = |to: &SocketAddrV4| Batch::new(*to, template.len());
            targets.iter().map(batch).collect()
        });
        Ok(Self { templates, batches })
    }

    /// Adds one, and sends what is full.
    fn put(&mut self, text: usize, target: usize, values: &Values, via: (usize, &mut Sockets)) -> anyhow::Result<()> {
        let batch = &mut self.batches[text][target];
        self.templates[text].write(values, &mut batch.bytes);
        if batch.is_full() {
            via.1.send(via.0, &mut self.batches[text][target..=target])?;
        }
        Ok(())
    }

    fn flush(&mut self, socket: usize, sockets: &mut Sockets) -> anyhow::Result<()> {
        for batches in &mut self.batches {
            if batches.iter().any(|batch| !batch.bytes.is_empty()) {
                sockets.send(socket, batches)?;
            }
        }
        Ok(())
    }
}

/// Who asked what and was told what.
struct Book {
    flight: Flight,
    population: Population,
    tally: Tally,
    answered: u64,
    /// Requests in flight of each socket.
    waiting: Vec<usize>,
    /// Targets whose answers came in this turn, and the calls to acknowledge.
    free: Vec<usize>,
    acks: Vec<(usize, Values)>,
}

impl Book {
    fn heard(&mut self, head: &[u8], now_ns: u64, acknowledges: bool) {
        let Some((status, branch)) = message::answer(head) else { return };
        if status < 200 {
            return;
        }
        let Some(request) = self.flight.end(branch) else { return };
        self.waiting[request.socket] -= 1;
        let expected = if request.kind == Kind::Lookup { 302 } else { 200 };
        let is_register = request.kind == Kind::Register;
        if status == expected {
            self.tally.answered += 1;
            self.answered += 1;
            if is_register {
                self.population.answered(request.values.phone);
            }
        } else {
            self.tally.refused += 1;
            self.tally.last_refused = status;
            if is_register {
                self.population.failed(request.values.phone);
            }
        }
        self.tally.latency(now_ns.saturating_sub(request.due_ns));
        if request.kind == Kind::Lookup && acknowledges {
            self.acks.push((request.target, request.values));
        }
        self.free.push(request.target);
    }
}

/// The load's thread.
pub(super) struct Generator {
    work: Work,
    sockets: Sockets,
    outbox: Outbox,
    book: Book,
    begun: Instant,
    schedule: Option<Schedule>,
    /// The mix as a wheel, and where it stands.
    wheel: Vec<Ask>,
    turn: usize,
    looks: u64,
    looked: Instant,
    processor_before: Duration,
    exhausted: bool,
}

/// What a turn of the wheel asks for.
#[derive(Debug, Clone, Copy)]
enum Ask {
    New,
    Refresh,
    Query,
    Lookup,
}

impl Generator {
    pub(super) fn new(work: Work, population: Population) -> anyhow::Result<Self> {
        ensure!(!work.targets.is_empty() && work.sources > 0, "a load wants a target and a source");
        let targets: Vec<SocketAddrV4> =
            work.targets.iter().map(|target| v4(*target)).collect::<anyhow::Result<_>>()?;
        let sockets = Sockets::open(work.sources, work.segments)?;
        let mut wheel = Vec::new();
        for (ask, parts) in [
            (Ask::New, work.mix.new),
            (Ask::Refresh, work.mix.refresh),
            (Ask::Query, work.mix.query),
            (Ask::Lookup, work.mix.lookup),
        ] {
            wheel.extend((0..parts).map(|_| ask));
        }
        ensure!(!wheel.is_empty(), "a load without requests");
        fastrand::Rng::with_seed(wheel.len() as u64).shuffle(&mut wheel);
        let book = Book {
            flight: Flight::new(fastrand::u64(..)),
            population,
            tally: Tally::new()?,
            answered: 0,
            waiting: vec![0; work.sources],
            free: Vec::with_capacity(1 << 12),
            acks: Vec::with_capacity(1 << 12),
        };
        let outbox = Outbox::new(&targets)?;
        let begun = Instant::now();
        Ok(Self {
            work,
            sockets,
            outbox,
            book,
            begun,
            schedule: None,
            wheel,
            turn: 0,
            looks: 0,
            looked: begun,
            processor_before: on_processor(),
            exhausted: false,
        })
    }

    /// Runs until it is told to stop, or has nothing left to do.
    pub(super) fn run(mut self, board: &Board, tallies: &SyncSender<Tally>) -> anyhow::Result<Population> {
        let mut late_ns = LATE_EVERY_NS;
        match self.work.pace {
            Pace::Closed { window } => self.open_window(window)?,
            Pace::Open { per_s, poisson } => self.schedule = Some(Schedule::new(per_s, poisson, self.now_ns())),
        }
        while !(board.stop.load(Ordering::Acquire) || self.exhausted && self.book.flight.len() == 0) {
            self.turn(true)?;
            let now_ns = self.now_ns();
            if now_ns >= late_ns {
                late_ns = now_ns + LATE_EVERY_NS;
                self.again(now_ns)?;
                // Where all requests were given up no answer starts the next one.
                self.follow_up(0, true)?;
            }
            board.answered.store(self.book.answered, Ordering::Relaxed);
            let looks = board.looks.load(Ordering::Acquire);
            if looks != self.looks {
                self.looks = looks;
                let _ = tallies.try_send(self.cut()?);
            }
        }
        let last = self.cut()?;
        let until_ns = self.now_ns() + FAREWELL_NS;
        while self.book.flight.len() > 0 && self.now_ns() < until_ns {
            self.turn(false)?;
        }
        let _ = tallies.try_send(last);
        Ok(self.book.population)
    }

    fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// The first requests of a closed loop, spread over targets and sockets.
    fn open_window(&mut self, window: usize) -> anyhow::Result<()> {
        let (targets, sources) = (self.work.targets.len(), self.work.sources);
        for socket in 0..sources.min(window) {
            for nth in (socket..window).step_by(sources) {
                // Of the requests of one socket, too, each target gets its share.
                self.ask((nth / sources + socket) % targets, socket, None)?;
            }
            self.outbox.flush(socket, &mut self.sockets)?;
        }
        Ok(())
    }

    /// Receives what is there, and sends what follows from it and what is due. `goes_on`: whether anything new is asked.
    fn turn(&mut self, goes_on: bool) -> anyhow::Result<()> {
        for socket in 0..self.work.sources {
            if self.book.waiting[socket] > 0 {
                self.receive(socket)?;
                self.follow_up(socket, goes_on)?;
            }
        }
        if goes_on && self.schedule.is_some() {
            self.ask_due()?;
        }
        Ok(())
    }

    fn receive(&mut self, socket: usize) -> anyhow::Result<()> {
        let Self { sockets, book, work, begun, .. } = self;
        // One reading of the clock for all that one system call brought.
        let mut now_ns = None;
        sockets.receive(socket, |head| {
            let now_ns = *now_ns.get_or_insert_with(|| begun.elapsed().as_nanos() as u64);
            book.heard(head, now_ns, work.ack);
        })?;
        Ok(())
    }

    /// Acknowledges calls and, in a closed loop, asks for the next thing wherever there was an answer.
    fn follow_up(&mut self, socket: usize, goes_on: bool) -> anyhow::Result<()> {
        while let Some((target, values)) = self.book.acks.pop() {
            self.outbox.put(ACK, target, &values, (socket, &mut self.sockets))?;
        }
        while let Some(target) = self.book.free.pop() {
            if goes_on && self.schedule.is_none() {
                self.ask(target, socket, None)?;
            }
        }
        self.outbox.flush(socket, &mut self.sockets)
    }

    fn ask_due(&mut self) -> anyhow::Result<()> {
        let now_ns = self.now_ns();
        let socket = self.turn % self.work.sources;
        let mut any = false;
        for _ in 0..DUE_AT_ONCE {
            let Some(due_ns) = self.schedule.as_mut().and_then(|schedule| schedule.due(now_ns)) else { break };
            let target = self.turn % self.work.targets.len();
            self.ask(target, socket, Some(due_ns))?;
            any = true;
        }
        if any { self.outbox.flush(socket, &mut self.sockets) } else { Ok(()) }
    }

    /// The next request of the mix.
    fn ask(&mut self, target: usize, socket: usize, due_ns: Option<u64>) -> anyhow::Result<()> {
        let ask = self.wheel[self.turn % self.wheel.len()];
        self.turn += 1;
        if !self.book.flight.has_room() {
            self.book.tally.overrun += 1;
            return Ok(());
        }
        let population = &mut self.book.population;
        let (kind, chosen) = match ask {
            Ask::New => (Kind::Register, population.newcomer(self.work.new_until)),
            Ask::Refresh => (Kind::Register, population.refresher(&self.work.known)),
            Ask::Query => (Kind::Query, population.anybody(&self.work.known).map(|phone| (phone, 0))),
            Ask::Lookup => (Kind::Lookup, population.anybody(&self.work.known).map(|phone| (phone, 0))),
        };
        let Some((phone, cseq)) = chosen else {
            self.exhausted |= matches!(ask, Ask::New);
            self.book.tally.overrun += u64::from(!matches!(ask, Ask::New));
            return Ok(());
        };
        let now_ns = self.now_ns();
        let from = (socket, self.sockets.ports()[socket]);
        let request = Request::new(kind, phone, cseq, target, from, due_ns.unwrap_or(now_ns));
        let Some(request) = self.book.flight.begin(request, now_ns) else { return Ok(()) };
        self.book.waiting[socket] += 1;
        self.book.tally.sent += 1;
        self.outbox.put(text_of(kind), target, &request.values, (socket, &mut self.sockets))
    }

    /// Sends again what waits too long.
    fn again(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let Self { book, outbox, sockets, .. } = self;
        let Book { flight, population, tally, waiting, free, .. } = book;
        let mut failed = Ok(());
        flight.late(now_ns, |request, late| match late {
            Late::Again => {
                tally.retransmitted += 1;
                let sent =
                    outbox.put(text_of(request.kind), request.target, &request.values, (request.socket, sockets));
                let sent = sent.and_then(|()| outbox.flush(request.socket, sockets));
                if failed.is_ok() {
                    failed = sent;
                }
            }
            Late::GivenUp => {
                tally.lost += 1;
                waiting[request.socket] -= 1;
                if request.kind == Kind::Register {
                    population.failed(request.values.phone);
                }
                free.push(request.target);
            }
        });
        failed
    }

    /// What was met since the last look.
    fn cut(&mut self) -> anyhow::Result<Tally> {
        let mut tally = std::mem::replace(&mut self.book.tally, Tally::new()?);
        let (now, processor) = (Instant::now(), on_processor());
        tally.span = now - self.looked;
        tally.on_processor =
            (processor.saturating_sub(self.processor_before)).as_secs_f64() / tally.span.as_secs_f64().max(1e-9);
        tally.lost += std::mem::take(&mut self.sockets.refused);
        // Without them the slowest would be missing, and nobody would see that they are.
        let now_ns = self.now_ns();
        for due_ns in self.book.flight.overdue_ns() {
            tally.unanswered += 1;
            tally.latency(now_ns.saturating_sub(due_ns));
        }
        (self.looked, self.processor_before) = (now, processor);
        Ok(tally)
    }
}

fn text_of(kind: Kind) -> usize {
    match kind {
        Kind::Register => REGISTER,
        Kind::Query => QUERY,
        Kind::Lookup => INVITE,
    }
}

/// How long the calling thread has had a processor.
fn on_processor() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
