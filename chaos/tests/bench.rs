//! The benchmark's load against a registrar that is a few lines long and errs on purpose: what it says it met is what it was
//! given.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aorta_chaos::bench::cores::Cores;
use aorta_chaos::bench::load::{Mix, Pace, Population, Running, Work};

/// Longest wait for a load that ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the registrar was asked, and by whom.
#[derive(Debug, Default)]
struct Asked {
    register: usize,
    invite: usize,
    ack: usize,
    users: BTreeSet<String>,
    sources: BTreeSet<SocketAddr>,
    bytes: BTreeSet<usize>,
}

/// Answers everything with 200, or 302; each nth request not at all, or late.
struct Registrar {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Asked>,
}

impl Registrar {
    fn start(ignored: Option<usize>, late: Duration, refused: Option<usize>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let (address, stop) = (socket.local_addr().expect("an address"), Arc::<AtomicBool>::default());
        let its = Arc::clone(&stop);
        let serve = move || {
            let (mut asked, mut room, mut nth) = (Asked::default(), [0; 2000], 0);
            let mut later: Vec<(Instant, Vec<u8>, SocketAddr)> = Vec::new();
            while !its.load(Ordering::Acquire) {
                let due = later.iter().take_while(|(at, ..)| *at <= Instant::now()).count();
                for (_, answer, to) in later.drain(..due) {
                    socket.send_to(&answer, to).expect("sent");
                }
                let Ok((bytes, from)) = socket.recv_from(&mut room) else { continue };
                nth += 1;
                let each = |every: Option<usize>| every.is_some_and(|every| nth % every == 0);
                if let (Some(answer), false) = (asked.hear(&room[..bytes], from, each(refused)), each(ignored)) {
                    later.push((Instant::now() + late, answer, from));
                }
            }
            asked
        };
        Self { address, stop, thread: thread::spawn(serve) }
    }

    fn end(self) -> Asked {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it ended")
    }
}

impl Asked {
    fn hear(&mut self, bytes: &[u8], from: SocketAddr, refused: bool) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(bytes).expect("text");
        self.bytes.insert(bytes.len());
        self.sources.insert(from);
        let to = text.lines().find_map(|line| line.strip_prefix("To: ")).expect("To");
        self.users.insert(to.split("sip:").nth(1).expect("a URI").split('@').next().unwrap_or_default().to_owned());
        let via = text.lines().nth(1).expect("Via");
        assert!(via.contains(&format!("127.0.0.1:{};", from.port())), "answers go where it came from: {via}");
        let status = match text.split(' ').next() {
            Some("ACK") => {
                self.ack += 1;
                return None;
            }
            Some("INVITE") => {
                self.invite += 1;
                "302 Moved Temporarily"
            }
            _ => {
                self.register += 1;
                "200 OK"
            }
        };
        let status = if refused { "503 Service Unavailable" } else { status };
        Some(format!("SIP/2.0 {status}\r\n{via}\r\n\r\n").into_bytes())
    }
}

fn work(targets: &[&Registrar], mix: Mix, pace: Pace) -> Work {
    let targets = targets.iter().map(|registrar| registrar.address).collect();
    Work { targets, sources: 3, pace, mix, known: 0..100, new_until: 500, ack: true, segments: true }
}

fn until_it_ends(running: &Running) {
    let begun = Instant::now();
    while !running.has_ended() {
        assert!(begun.elapsed() < PATIENCE, "the load does not end");
        thread::yield_now();
    }
}

fn until_answered(running: &Running, answers: u64) {
    let begun = Instant::now();
    while running.answered() < answers {
        assert!(begun.elapsed() < PATIENCE && !running.has_ended(), "{} answers", running.answered());
        thread::yield_now();
    }
}

#[test]
fn everybody_registers_once_though_answers_are_lost_and_refused() {
    let cores = Cores::here().expect("two processors");
    // Both err: which of the two is asked more often is the machine's to say.
    let registrars = [(); 2].map(|()| Registrar::start(Some(60), Duration::ZERO, Some(70)));
    let [one, two] = &registrars;
    let work = work(&[one, two], Mix::NEW, Pace::Closed { window: 16 });
    let running = Running::start(work, Population::new(500), &cores).expect("started");
    until_it_ends(&running);
    let (tally, population) = running.stop().expect("sound");
    let [one, two] = registrars.map(Registrar::end);
    assert_eq!((population.registered(), tally.answered, tally.lost), (500, 500, 0));
    assert!(tally.refused >= 1 && tally.last_refused == 503, "{}", tally.refused);
    assert!(tally.retransmitted >= 1, "what was not answered was sent again");
    assert_eq!((one.register + two.register) as u64, tally.sent + tally.retransmitted);
    assert_eq!(&one.users | &two.users, population_of(500));
    assert_eq!((one.sources.len(), one.bytes.len()), (3, 1));
    assert!(tally.latencies().max_ms >= 500.0, "a retransmission counts from the first sending");
}

fn population_of(count: usize) -> BTreeSet<String> {
    (0..count).map(|phone| (10_000_000 + phone).to_string()).collect()
}

#[test]
fn calls_are_acknowledged_and_a_mix_keeps_its_parts() {
    let cores = Cores::here().expect("two processors");
    let registrar = Registrar::start(None, Duration::ZERO, None);
    let mix = Mix { refresh: 1, lookup: 3, ..Mix::default() };
    let work = work(&[&registrar], mix, Pace::Closed { window: 8 });
    let running = Running::start(work, Population::all_registered(100), &cores).expect("started");
    until_answered(&running, 4000);
    let (tally, _) = running.stop().expect("sound");
    let asked = registrar.end();
    assert_eq!((tally.lost, tally.refused, asked.bytes.len()), (0, 0, 3));
    // What is in flight at the end makes the difference.
    assert!(asked.ack + 16 >= asked.invite && asked.ack <= asked.invite, "{} of {}", asked.ack, asked.invite);
    assert!(asked.register.abs_diff(asked.invite / 3) <= 16, "{} to {}", asked.register, asked.invite);
}

#[test]
fn an_open_loop_counts_from_the_moment_that_a_request_was_due() {
    let cores = Cores::here().expect("two processors");
    let late = Duration::from_millis(150);
    let registrar = Registrar::start(None, late, None);
    let pace = Pace::Open { per_s: 500.0, poisson: true };
    let running = Running::start(work(&[&registrar], Mix::QUERY, pace), Population::all_registered(100), &cores);
    let running = running.expect("started");
    until_answered(&running, 100);
    running.look().expect("a tally");
    until_answered(&running, 300);
    let tally = running.look().expect("a tally");
    drop(running);
    registrar.end();
    let latencies = tally.latencies();
    assert!(latencies.p50_ms >= late.as_secs_f64() * 1000.0, "{latencies:?}");
    assert!(tally.answered >= 150 && tally.overrun == 0, "{} answered", tally.answered);
}

#[test]
fn what_nobody_answers_is_told_while_it_waits() {
    let cores = Cores::here().expect("two processors");
    let registrar = Registrar::start(Some(2), Duration::ZERO, None);
    let pace = Pace::Open { per_s: 500.0, poisson: false };
    let running = Running::start(work(&[&registrar], Mix::QUERY, pace), Population::all_registered(100), &cores);
    let running = running.expect("started");
    let begun = Instant::now();
    let tally = loop {
        let tally = running.look().expect("a tally");
        if tally.unanswered > 0 {
            break tally;
        }
        assert!(begun.elapsed() < PATIENCE, "every second request is ignored, and none is overdue");
        thread::yield_now();
    };
    drop(running);
    registrar.end();
    assert_eq!((tally.lost, tally.refused), (0, 0), "not given up for half a minute yet");
    assert_eq!(tally.failed(), tally.unanswered + tally.overrun);
    assert!(tally.latencies().max_ms >= 500.0, "it counts by the time that it has waited: {:?}", tally.latencies());
}
