//! Phones that register, refresh, move and unregister as fast as they are answered, and remember every step with the moment
//! of its 200: what a node may say of them after it lost its memory follows from that alone.

use aorta_phones::Nodes;
use aorta_phones::engine::{Next, Outcome, Patience, Request, Work, drive};
use aorta_phones::request::Text;
use aorta_phones::stats::Stats;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Requests in flight on one socket.
const WINDOW: usize = 16;
/// A request without an answer for so long has none: sent once, for a second copy might reach the next life of a node.
const LOAD_PATIENCE: Duration = Duration::from_millis(800);
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
const SECONDS: u32 = 3600;

/// The ports at which a phone can be reached.
type Ports = Vec<u16>;

/// One request: where the phone is from then on, and when it was told so.
#[derive(Debug, Clone)]
struct Step {
    ports: Ports,
    told: Option<Instant>,
}

/// One phone and all that it did since its state was last certain.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    index: usize,
    cseq: u32,
    /// Never empty.
    steps: Vec<Step>,
}

/// A phone of which a node said something older than what it was told last.
pub(crate) struct Told {
    phone: usize,
    said: Ports,
    last: Ports,
    /// How long before the kill the first step that is not there had been acknowledged.
    pub(crate) before_kill: Duration,
    /// That was long enough.
    pub(crate) guaranteed: bool,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phone, said, last, before_kill, guaranteed } = self;
        let promised = if *guaranteed { "promised" } else { "not promised" };
        write!(f, "phone {phone} is at {said:?}, not {last:?} ({before_kill:?} before the kill: {promised})")
    }
}

impl Line {
    fn head(&self, ports: &[(u16, u32)]) -> Text {
        let Self { index, cseq, .. } = self;
        let mut rest = format!(
            "Max-Forwards: 70\r\nFrom: <sip:p{index}@power.test>;tag=p{index}\r\nTo: <sip:p{index}@power.test>\r\n\
             Call-ID: p{index}@phones.invalid\r\nCSeq: {cseq} REGISTER\r\n"
        );
        for (port, expires) in ports {
            rest.push_str(&format!("Contact: <sip:p{index}@192.0.2.7:{port}>;expires={expires}\r\n"));
        }
        rest.push_str("Content-Length: 0\r\n\r\n");
        Text { start: "REGISTER sip:power.test SIP/2.0\r\n".to_owned(), rest }
    }

    /// The next thing that it does.
    fn act(&mut self, rng: &mut fastrand::Rng) -> Text {
        self.cseq += 1;
        let at = self.steps.last().and_then(|step| step.ports.first().copied());
        let new = rng.u16(1024..60_000);
        let contacts = match (at, rng.u8(0..10)) {
            (None, _) => vec![(new, SECONDS)],
            (Some(at), 0..4) => vec![(at, SECONDS)],
            (Some(at), 4..7) if at != new => vec![(new, SECONDS), (at, 0)],
            (Some(at), _) => vec![(at, 0)],
        };
        let ports = contacts.iter().filter(|(_, expires)| *expires > 0).map(|(port, _)| *port).collect();
        self.steps.push(Step { ports, told: None });
        self.head(&contacts)
    }

    /// Whether a node may say this; if not, which acknowledged step it forgot. What came after a step may be there, answered
    /// or not.
    fn judge(&self, said: &Ports, killed: Instant, until: Instant) -> Option<Told> {
        let is_told = |step: &&Step| step.told.is_some();
        let last = self.steps.iter().rposition(|step| step.told.is_some())?;
        if self.steps[last..].iter().any(|step| step.ports == *said) {
            return None;
        }
        // The latest step that it can have come from; all that was acknowledged after that is lost.
        let from = self.steps[..last].iter().rposition(|step| step.ports == *said);
        let forgotten = self.steps.iter().skip(from.map_or(0, |from| from + 1)).find(is_told)?;
        let told = forgotten.told?;
        Some(Told {
            phone: self.index,
            said: said.clone(),
            last: self.steps[last].ports.clone(),
            before_kill: killed.saturating_duration_since(told),
            guaranteed: told <= until,
        })
    }
}

/// What the load and the test share.
#[derive(Debug)]
pub(crate) struct Shared {
    told: AtomicU64,
    stop: AtomicBool,
    began: Instant,
    done: Mutex<Vec<Line>>,
}

impl Shared {
    /// Requests answered 200.
    pub(crate) fn count(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The phones, once the load has ended.
    pub(crate) fn done(&self) -> Vec<Line> {
        std::mem::take(&mut *self.done.lock().expect("nobody panicked"))
    }
}

/// All phones.
pub(crate) struct Desk {
    lines: Vec<Line>,
    sockets: usize,
}

impl Desk {
    pub(crate) fn new(phones: usize, sockets: usize) -> Self {
        let nowhere = || vec![Step { ports: Ports::new(), told: Some(Instant::now()) }];
        Self { lines: (0..phones).map(|index| Line { index, cseq: 0, steps: nowhere() }).collect(), sockets }
    }

    /// Starts the load.
    pub(crate) fn start(&self, nodes: &Arc<Nodes>, seed: u64) -> (Arc<Shared>, tokio::task::JoinHandle<Stats>) {
        let shared = Arc::new(Shared {
            told: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            began: Instant::now(),
            done: Mutex::default(),
        });
        let share = |nth: usize| self.lines.iter().skip(nth).step_by(self.sockets).cloned().collect::<Vec<_>>();
        let tasks: Vec<_> = (0..self.sockets)
            .map(|nth| {
                let lines = share(nth);
                let rng = fastrand::Rng::with_seed(seed ^ nth as u64);
                let idle = (0..lines.len()).rev().collect();
                let load = Load { lines, idle, rng, shared: Arc::clone(&shared) };
                tokio::spawn(drive(Arc::clone(nodes), Patience::once(LOAD_PATIENCE), WINDOW, load))
            })
            .collect();
        let into = Arc::clone(&shared);
        let all = tokio::spawn(async move {
            let mut all = Stats::default();
            for task in tasks {
                let (load, stats) = task.await.expect("no panic").expect("sockets");
                into.done.lock().expect("nobody panicked").extend(load.lines);
                all.merge(stats);
            }
            all
        });
        (shared, all)
    }

    /// Takes the phones back from the load.
    pub(crate) fn take(&mut self, mut lines: Vec<Line>) {
        lines.sort_by_key(|line| line.index);
        self.lines = lines;
    }

    /// What a node says of every phone.
    pub(crate) async fn ask(&self, node: SocketAddr) -> Vec<Ports> {
        let nodes = Arc::new(Nodes::new(&[node]).expect("a node"));
        let asked = Questions { lines: self.lines.clone(), next: 0, said: vec![None; self.lines.len()] };
        let (asked, _) = drive(nodes, Patience::direct(QUESTION_PATIENCE), 64, asked).await.expect("a socket");
        let said = asked.said.into_iter().enumerate();
        said.map(|(phone, said)| said.unwrap_or_else(|| panic!("{node} said nothing of phone {phone}"))).collect()
    }

    /// What a node forgot of what was acknowledged; guaranteed is what was so up to `until`.
    pub(crate) fn judge(&self, said: &[Ports], killed: Instant, until: Instant) -> Vec<Told> {
        self.lines.iter().zip(said).filter_map(|(line, said)| line.judge(said, killed, until)).collect()
    }

    /// What the nodes agree upon is certain from here on.
    pub(crate) fn settle(&mut self, said: &[Ports]) {
        for (line, ports) in self.lines.iter_mut().zip(said) {
            line.cseq += 1;
            line.steps = vec![Step { ports: ports.clone(), told: Some(Instant::now()) }];
        }
    }
}

/// The work of one socket: each phone acts again as soon as it is answered.
struct Load {
    lines: Vec<Line>,
    idle: std::collections::VecDeque<usize>,
    rng: fastrand::Rng,
    shared: Arc<Shared>,
}

impl Work for Load {
    fn next(&mut self) -> Next {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Next::Finished;
        }
        // A phone that was not answered takes no further part.
        let Some(at) = self.idle.pop_front() else { return Next::Wait(Instant::now() + Duration::from_millis(5)) };
        let text = self.lines[at].act(&mut self.rng);
        Next::Start(Request { tag: at as u64, text, to: None, due: None })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let at = outcome.tag as usize;
        if outcome.status() == Some(200) {
            if let Some(step) = self.lines[at].steps.last_mut() {
                step.told = Some(Instant::now());
            }
            self.shared.told.fetch_add(1, Ordering::Relaxed);
            self.idle.push_back(at);
        }
        None
    }
}

/// Asks once for each phone.
struct Questions {
    lines: Vec<Line>,
    next: usize,
    said: Vec<Option<Ports>>,
}

impl Work for Questions {
    fn next(&mut self) -> Next {
        let Some(line) = self.lines.get_mut(self.next) else { return Next::Finished };
        line.cseq += 1;
        self.next += 1;
        Next::Start(Request { tag: self.next as u64 - 1, text: line.head(&[]), to: None, due: None })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        if let (Some(200), Some(reply)) = (outcome.status(), outcome.reply) {
            let contacts = reply.contacts().expect("contacts");
            let port = |uri: &str| uri.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let mut ports: Ports = contacts.iter().filter_map(|contact| port(contact.uri)).collect();
            ports.sort_unstable();
            self.said[outcome.tag as usize] = Some(ports);
        }
        None
    }
}

#[test]
fn a_line_knows_what_was_forgotten() {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let step = |port: &[u16], told: Option<u64>| Step { ports: port.to_vec(), told: told.map(at) };
    let steps = vec![step(&[], Some(0)), step(&[1], Some(100)), step(&[], Some(200)), step(&[2], None)];
    let line = Line { index: 0, cseq: 9, steps };
    let judge = |said: &[u16], until: u64| line.judge(&said.to_vec(), at(300), at(until));
    assert!(judge(&[], 300).is_none() && judge(&[2], 300).is_none(), "the last that was told, and what is open");
    let old = judge(&[1], 300).expect("removed, yet served");
    assert_eq!((old.before_kill, old.guaranteed), (Duration::from_millis(100), true));
    assert!(!judge(&[1], 150).expect("not promised").guaranteed);
    let never = judge(&[7], 150).expect("never there");
    assert!(never.guaranteed);
    let registered = Line { steps: line.steps[..2].to_vec(), ..line.clone() };
    assert!(registered.judge(&Ports::new(), at(300), at(150)).expect("missing").guaranteed);
}
