//! What processes cost, as the kernel counts it: processor time, memory, and what else the processors did meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::host::{stat_of, ticks, ticks_of, time_in_ticks};

/// A process and all that it started, itself first.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat_of(child).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        all.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    all
}

/// User and system time of these processes since their start. In nanoseconds where the kernel keeps them (schedstat), but that
/// is of threads that live; in its ticks where threads that have ended had more.
pub(super) fn processor_time(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| precise(*pid).max(time_in_ticks(*pid)).unwrap_or_default()).sum()
}

fn precise(pid: u32) -> Option<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}

/// Proportional memory of these processes, bytes: what they share counts once.
///
/// # Errors
/// When one of them is gone, or the kernel does not say.
pub(super) fn memory_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("no Pss in {file}"))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("Pss in {file}"))?;
        sum += kib * 1024;
    }
    Ok(sum)
}

/// What some processors did, and the machine's sockets lost.
#[derive(Debug, Clone)]
pub(super) struct Look {
    at: Instant,
    /// By processor that the kernel tells of: ticks idle, and ticks that the hypervisor took.
    idle: Vec<(u64, u64)>,
    dropped: u64,
}

/// What changed between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Busy {
    /// Time in which the processors were not idle, all together, and the hypervisor did not have them.
    pub(super) busy: Duration,
    /// Time that the hypervisor took, of all that there was.
    pub(super) stolen_share: f64,
    /// Datagrams that found no room in a socket of this machine.
    pub(super) dropped: u64,
    /// Time from look to look.
    pub(super) span: Duration,
}

impl Look {
    /// At these processors, now.
    pub(super) fn at(cores: &[usize]) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let snmp = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
        Self {
            at: Instant::now(),
            idle: cores.iter().filter_map(|core| ticks_of(&stat, *core)).collect(),
            dropped: dropped(&snmp),
        }
    }

    /// What happened since.
    pub(super) fn since(&self, before: &Self) -> Busy {
        let span = self.at - before.at;
        let change = |of: fn(&(u64, u64)) -> u64| -> Duration {
            ticks(self.idle.iter().zip(&before.idle).map(|(now, then)| of(now).saturating_sub(of(then))).sum())
        };
        let all = span * u32::try_from(self.idle.len()).unwrap_or(u32::MAX);
        Busy {
            busy: all.saturating_sub(change(|(idle, stolen)| idle + stolen)),
            stolen_share: change(|(_, stolen)| *stolen).as_secs_f64() / all.as_secs_f64().max(1e-9),
            dropped: self.dropped.saturating_sub(before.dropped),
            span,
        }
    }
}

/// Time that something else took of the processors, of all that there was: above it, a measurement is void.
const FOREIGN_SHARE_MAX: f64 = 0.05;
/// What ticks may add to that by chance.
const TICKS_ERR: Duration = Duration::from_millis(40);

/// Watches some processors on which only these processes should run.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    cores: Vec<usize>,
    look: Look,
    used: Duration,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Watched {
    /// Processor time of the processes.
    pub(super) used: Duration,
    pub(super) busy: Busy,
    /// Processor time of anything else, of all that there was.
    pub(super) foreign_share: f64,
}

impl Watch {
    pub(super) fn begin(cores: &[usize], pids: &[u32]) -> Self {
        Self { cores: cores.to_vec(), look: Look::at(cores), used: processor_time(pids) }
    }

    /// `pids`: those of the beginning, and any that came since.
    pub(super) fn end(&self, pids: &[u32]) -> Watched {
        let busy = Look::at(&self.cores).since(&self.look);
        let used = processor_time(pids).saturating_sub(self.used);
        let all_s = busy.span.as_secs_f64() * self.cores.len() as f64;
        let foreign = busy.busy.saturating_sub(used + TICKS_ERR);
        Watched { used, busy, foreign_share: foreign.as_secs_f64() / all_s.max(1e-9) }
    }
}

impl Watched {
    /// Why what was measured meanwhile must not be believed; nothing if it may.
    pub(super) fn void(&self) -> Vec<String> {
        let foreign = (self.foreign_share > FOREIGN_SHARE_MAX)
            .then(|| format!("something else used {:.0} % of the processors", self.foreign_share * 100.0));
        let stolen = (self.busy.stolen_share > FOREIGN_SHARE_MAX)
            .then(|| format!("the host took {:.0} %", self.busy.stolen_share * 100.0));
        foreign.into_iter().chain(stolen).collect()
    }
}

/// RcvbufErrors of UDP.
fn dropped(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let at = names.split_whitespace().position(|name| name == "RcvbufErrors");
    at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn this_process_costs_something() {
        let own = std::process::id();
        let before = processor_time(&[own]);
        let begun = Instant::now();
        let mut waste = 0_u64;
        while begun.elapsed() < Duration::from_millis(30) {
            waste = waste.wrapping_add(begun.elapsed().as_nanos() as u64);
        }
        assert!(waste != 0 && processor_time(&[own]) >= before + Duration::from_millis(5));
        assert!(time_in_ticks(own).is_some());
        assert!(memory_bytes(&[own]).expect("said") > 500_000);
        assert!(memory_bytes(&[u32::MAX]).is_err());
        assert_eq!(family(own)[0], own);
    }

    #[test]
    fn a_thread_that_has_ended_costs_what_it_did() {
        let (own, long) = (std::process::id(), Duration::from_millis(200));
        let before = processor_time(&[own]);
        let spin = move || {
            let begun = processor_time_of_this_thread();
            while processor_time_of_this_thread() < begun + long {
                std::hint::spin_loop();
            }
        };
        std::thread::spawn(spin).join().expect("spins");
        assert!(processor_time(&[own]) >= before + long / 2);
    }

    fn processor_time_of_this_thread() -> Duration {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
        Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32)
    }

    #[test]
    fn what_others_do_on_the_processors_is_seen() {
        let share = |busy_ms, stolen_share| {
            let busy = Busy { busy: Duration::from_millis(busy_ms), stolen_share, ..Busy::default() };
            Watched { busy, foreign_share: busy_ms as f64 / 1000.0, ..Watched::default() }.void().len()
        };
        assert_eq!((share(40, 0.0), share(60, 0.0), share(60, 0.06)), (0, 1, 2));
        let watch = Watch::begin(&[0, 1], &[std::process::id()]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let seen = watch.end(&[std::process::id()]);
        assert!(seen.used > Duration::ZERO && seen.busy.span >= Duration::from_millis(20));
        assert!((0.0..=1.5).contains(&seen.foreign_share), "{}", seen.foreign_share);
    }

    #[test]
    fn a_processor_is_busy_when_it_is_neither_idle_nor_stolen() {
        let at = Instant::now();
        let before = Look { at, idle: vec![(1000, 5), (2000, 7)], dropped: 3 };
        let later = Look { at: at + Duration::from_secs(2), idle: vec![(1150, 5), (2190, 17)], dropped: 4 };
        let tick = ticks(1);
        let seen = later.since(&before);
        assert_eq!(seen.busy, Duration::from_secs(4) - 350 * tick);
        assert!((seen.stolen_share - (10 * tick).as_secs_f64() / 4.0).abs() < 1e-6, "{}", seen.stolen_share);
        assert_eq!((seen.dropped, seen.span), (1, Duration::from_secs(2)));
    }

    #[test]
    fn children_belong_to_the_family() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().expect("started");
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    #[test]
    fn what_the_kernel_prints_is_read() {
        let snmp = "Udp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 5 17 3\nUdpLite: InDatagrams\nUdpLite: 0\n";
        assert_eq!(dropped(snmp), 17);
        assert_eq!(dropped(""), 0);
    }
}
