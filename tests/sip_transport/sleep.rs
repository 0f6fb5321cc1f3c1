//! A process that is really stopped: it must know it when it goes on, and not serve what waited meanwhile.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aorta::clock::{Clock, kernel_wall_us};
use aorta::sip::transport::{Batch, Bound, Service, Settings, Transport};
use aorta_proto::BootId;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::unistd::Pid;

use crate::rig::{DEADLINE, phone};

/// Set in the child: this test, run again as the process that is stopped.
const CHILD: &str = "AORTA_TEST_STOPPED_CHILD";

/// Longer than a datagram may wait (500 ms) and than half the ack timeout (150 ms).
const STOPPED: Duration = Duration::from_millis(700);

struct Teller;

impl Service for Teller {
    fn handle(&self, batch: Batch<'_>) {
        batch.for_each((1, |_: &[&[u8]]| {}), |message, _, _| {
            println!("\nchild heard {}", String::from_utf8_lossy(message))
        });
    }

    fn slept(&self, gap_us: u64) {
        println!("\nchild slept {gap_us}");
    }
}

/// Serves until its parent is gone.
fn child() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    let listen = vec![(Transport::Udp, "127.0.0.1:0".parse().expect("an address"))];
    let bound = Bound::bind(Settings { listen, udp_threads: 4, ..Settings::default() }).expect("a port");
    let clock = Arc::new(Clock::system(BootId(1)));
    let transports = bound.start(Arc::new(Teller), clock, runtime.handle(), runtime.handle()).expect("threads");
    println!("\nchild listens {}", transports.addresses()[0].1);
    // Standard input ends with the parent.
    std::io::stdin().lines().for_each(drop);
}

struct Stoppable {
    process: Child,
    said: mpsc::Receiver<String>,
}

impl Stoppable {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "sleep::a_stopped_process_knows_that_it_slept", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            lines
                .filter_map(|line| Some(line.strip_prefix("child ")?.to_owned()))
                .try_for_each(|line| sender.send(line))
        });
        Self { process, said }
    }

    fn says(&self) -> String {
        self.said.recv_timeout(DEADLINE).expect("the child speaks")
    }

    /// What it hears next. A busy machine may make it sleep in between.
    fn hears(&self) -> String {
        loop {
            if let Some(heard) = self.says().strip_prefix("heard ") {
                return heard.to_owned();
            }
        }
    }

    /// How long it slept, microseconds, if that is what it says next.
    fn slept(&self) -> u64 {
        let said = self.says();
        said.strip_prefix("slept ").and_then(|gap| gap.parse().ok()).expect(&said)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().expect("a pid")), signal).expect("delivered");
    }

    /// Waits until the kernel says that every thread is stopped.
    fn wait_until_stopped(&self) {
        let begun = Instant::now();
        let tasks = format!("/proc/{}/task", self.process.id());
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).expect("readable");
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).expect("readable").all(|task| stopped(task.expect("a task"))) {
            assert!(begun.elapsed() < DEADLINE, "it stops");
            thread::yield_now();
        }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Waits until the kernel stamps datagrams when they come: for some milliseconds after the first socket on a machine asked
/// for it, it stamps them when they are read.
fn until_the_kernel_stamps() {
    let (sender, receiver) = (phone("127.0.0.1:0"), phone("127.0.0.1:0"));
    setsockopt(&receiver, sockopt::ReceiveTimestampns, &true).expect("set");
    let begun = Instant::now();
    loop {
        sender.send_to(b"x", receiver.local_addr().expect("bound")).expect("sent");
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_millis(5) {
            thread::yield_now();
        }
        let mut control = nix::cmsg_space!(libc::timespec);
        let fd = receiver.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut [], Some(&mut control), MsgFlags::empty()).expect("received");
        let stamped = message.cmsgs().expect("whole").find_map(|item| match item {
            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
            _ => None,
        });
        let stamped_us = u64::try_from(stamped.expect("a stamp").as_micros()).expect("small");
        if kernel_wall_us().saturating_sub(stamped_us) >= 5_000 {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "the kernel stamps");
    }
}

#[test]
fn a_stopped_process_knows_that_it_slept() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let child = Stoppable::start();
    let addr = child.says().strip_prefix("listens ").expect("its address").to_owned();
    let phone = phone("127.0.0.1:0");
    phone.send_to(b"awake", &addr).expect("sent");
    assert_eq!(child.hears(), "awake");
    until_the_kernel_stamps();
    child.signal(Signal::SIGSTOP);
    child.wait_until_stopped();
    for _ in 0..8 {
        phone.send_to(b"waited", &addr).expect("sent");
    }
    // What it said before it was stopped may still be on its way.
    let begun = Instant::now();
    while let Ok(said) = child.said.recv_timeout(STOPPED.saturating_sub(begun.elapsed())) {
        assert!(said.starts_with("slept "), "{said}");
    }
    child.signal(Signal::SIGCONT);
    let slept_us = child.slept();
    assert!(slept_us >= 600_000, "{slept_us}");
    phone.send_to(b"fresh", &addr).expect("sent");
    assert_eq!(child.hears(), "fresh", "nothing that waited is heard");
}
