//! What the kernel tells of processors: what they did, for which process, and what the hypervisor took of them. Judges nothing.

use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// The processors that this process may use.
///
/// # Errors
/// When the system does not say.
pub(crate) fn processors() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::this())?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Fields of `/proc/PID/stat` after the name, which may hold anything; nothing where there is no such process.
pub(crate) fn stat_of(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// User and system time of all its threads, those that have ended too; in ticks, which the kernel samples.
pub(crate) fn time_in_ticks(pid: u32) -> Option<Duration> {
    let fields = stat_of(pid)?;
    Some(ticks(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?))
}

/// Ticks in which a processor was idle, and ticks that the hypervisor took of it; nothing where the kernel does not name it.
///
/// Linux measures the time without work (`NO_HZ`), but only samples what the rest went to, 250 times a second: an even load of
/// 4000 requests a second is in step with that, and any figure from a half to twice the truth comes out.
pub(crate) fn ticks_of(stat: &str, core: usize) -> Option<(u64, u64)> {
    let name = format!("cpu{core} ");
    let rest = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    // user nice system idle iowait irq softirq steal guest guest_nice.
    let ticks: Vec<u64> = rest.split_whitespace().map(|ticks| ticks.parse().unwrap_or(0)).collect();
    let at = |place: usize| ticks.get(place).copied().unwrap_or(0);
    Some((at(3) + at(4), at(7)))
}

/// So many ticks.
pub(crate) fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / ticks_per_s())
}

/// Of the kernel's times in /proc.
fn ticks_per_s() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// The processors of this process, and what the hypervisor has taken of each so far.
#[derive(Debug)]
pub(crate) struct Host {
    taken: Vec<(usize, Duration)>,
}

impl Host {
    /// Those that this process may use; none where the system does not say.
    pub(crate) fn here() -> Self {
        let cores = processors().unwrap_or_default();
        let mut host = Self { taken: cores.into_iter().map(|core| (core, Duration::ZERO)).collect() };
        host.taken_since();
        host
    }

    /// The most that the hypervisor took of one of them since this was asked last.
    pub(crate) fn taken_since(&mut self) -> Duration {
        self.see(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn see(&mut self, stat: &str) -> Duration {
        let grown = self.taken.iter_mut().map(|(core, before)| {
            let Some((_, taken)) = ticks_of(stat, *core) else { return Duration::ZERO };
            let taken = ticks(taken);
            taken.saturating_sub(std::mem::replace(before, taken))
        });
        grown.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_by_processor() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 0\ncpu1 100 1 20 1000 50 0 3 7 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(ticks_of(stat, 1), Some((1050, 7)));
        assert_eq!(ticks_of(stat, 2), None);
    }

    #[test]
    fn what_was_taken_of_the_worst_processor_counts_once() {
        let stat = |one: u64, two: u64| format!("cpu0 0 0 0 0 0 0 0 {one} 0 0\ncpu1 0 0 0 0 0 0 0 {two} 0 0\n");
        let mut host = Host { taken: vec![(0, Duration::ZERO), (1, Duration::ZERO), (7, Duration::ZERO)] };
        assert_eq!(host.see(&stat(3, 5)), ticks(5));
        assert_eq!(host.see(&stat(13, 6)), ticks(10));
        assert_eq!(host.see(&stat(13, 6)), Duration::ZERO);
        assert!(!Host::here().taken.is_empty());
    }
}
