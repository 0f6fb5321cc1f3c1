//! One phone at a time registers at one node; whether and when the others know it is asked as soon as it has its 200. One
//! request in flight a node, no batches: this measures delays, not work.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;

use super::message::{self, Template, Values};
use super::tally::{Latencies, Tally};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait until another node knows a phone.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(30);

/// What was met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delays {
    /// From REGISTER to its 200.
    pub answer: Latencies,
    /// From the 200 until the last of the other nodes knew; 0 where it knew at the first question.
    pub visible: Latencies,
    /// Phones of which another node did not know at the first question.
    pub late: usize,
    /// All.
    pub phones: usize,
}

/// Registers phones `first..first + count`, one after the other with a pause between, and asks for each at all other nodes.
///
/// # Errors
/// When an answer is missing or another than expected, or a phone never becomes known.
pub fn delays(targets: &[SocketAddr], first: u32, count: u32, pause: Duration) -> anyhow::Result<Delays> {
    let probe = Probe::open()?;
    let (mut answers, mut visible) = (Tally::new()?, Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?);
    let mut late = 0;
    for nth in 0..count {
        let (registrar, phone) = (nth as usize % targets.len(), first + nth);
        let begun = Instant::now();
        let status = probe.ask(&probe.register, targets[registrar], phone)?;
        let told = Instant::now();
        ensure!(status == 200, "a REGISTER is answered {status}");
        answers.latency((told - begun).as_nanos() as u64);
        let mut last = Duration::ZERO;
        for target in targets.iter().enumerate().filter(|(node, _)| *node != registrar).map(|(_, target)| *target) {
            if let Some(after) = probe.until_known(target, phone, told)? {
                last = last.max(after);
            }
        }
        late += usize::from(last > Duration::ZERO);
        visible.saturating_record(last.as_nanos() as u64);
        while told.elapsed() < pause {
            std::hint::spin_loop();
        }
    }
    let ms =
        |share| if visible.value_at_quantile(share) <= 1 { 0.0 } else { visible.value_at_quantile(share) as f64 / 1e6 };
    let visible = Latencies { p50_ms: ms(0.5), p90_ms: ms(0.9), p99_ms: ms(0.99), p999_ms: ms(0.999), max_ms: ms(1.0) };
    Ok(Delays { answer: answers.latencies(), visible, late, phones: count as usize })
}

struct Probe {
    socket: UdpSocket,
    port: u16,
    register: Template,
    invite: Template,
    branch: std::cell::Cell<u64>,
}

impl Probe {
    fn open() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a socket for the load")?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let (register, invite) = (Template::new(message::REGISTER)?, Template::new(message::INVITE)?);
        Ok(Self { socket, port, register, invite, branch: fastrand::u64(..1 << 60).into() })
    }

    /// The status of the answer, as soon as it is there.
    fn ask(&self, template: &Template, to: SocketAddr, phone: u32) -> anyhow::Result<u16> {
        let branch = self.branch.get() + 1;
        self.branch.set(branch);
        let mut request = Vec::with_capacity(template.len());
        template.write(&Values { branch, port: self.port, phone, cseq: message::FIRST_CSEQ }, &mut request);
        self.socket.send_to(&request, to).context("asking")?;
        let begun = Instant::now();
        let mut room = [0; 2048];
        loop {
            match self.socket.recv(&mut room) {
                Ok(bytes) => match message::answer(&room[..bytes]) {
                    Some((status, of)) if of == branch && status >= 200 => return Ok(status),
                    _ => {}
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => bail!("asking {to}: {error}"),
            }
            ensure!(begun.elapsed() < PATIENCE, "no answer of {to} within {PATIENCE:?}");
        }
    }

    /// When the first question that met a node which knows the phone was asked, after `told`; `None` when that was the first
    /// of all.
    fn until_known(&self, target: SocketAddr, phone: u32, told: Instant) -> anyhow::Result<Option<Duration>> {
        let mut is_first = true;
        loop {
            let asked = told.elapsed();
            match self.ask(&self.invite, target, phone)? {
                302 => return Ok((!is_first).then_some(asked)),
                404 => is_first = false,
                status => bail!("an INVITE is answered {status}"),
            }
            ensure!(asked < VISIBLE_PATIENCE, "{target} does not know a phone after {asked:?}");
        }
    }
}
