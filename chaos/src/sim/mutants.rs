//! Deliberate faults in the nodes, and after how many seeds the simulator finds each. Which there are is a matter of
//! `aorta_proto::mutant`; without the feature `mutants` there are none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::plan::Plan;
use super::run_plan;

/// A mutant is hunted so often, each time from another first seed.
pub const HUNTS: u64 = 5;

/// From one first seed to the next.
const SEEDS_APART: u64 = 1_000_000;

/// A fault that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// In the how manyth seed.
    pub after: u64,
    /// The run that found it.
    pub plan: Plan,
    /// What did not hold.
    pub failure: String,
}

/// The names of all faults that this build can make.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let here = cfg!(feature = "mutants");
    aorta_proto::mutant::ALL.iter().filter(|_| here).map(|(name, _)| *name).collect()
}

/// Runs one seed after another with a fault in force, until something does not hold.
#[must_use]
pub fn hunt(mutant: &str, first_seed: u64, seeds: u64) -> Option<Caught> {
    (0..seeds).find_map(|index| {
        let plan = Plan { mutant: Some(mutant.to_owned()), ..Plan::of(first_seed + index) };
        let failure = run_plan(&plan, false).failure?;
        Some(Caught { after: index + 1, plan, failure })
    })
}

/// What hunting one mutant came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunted {
    /// Which.
    pub name: &'static str,
    /// Found after so many seeds, fewest first; one that was not found, if it is so, ends the hunts.
    pub after: Vec<u64>,
    /// The first run that found it.
    pub caught: Option<Caught>,
}

impl Hunted {
    /// Found from each first seed.
    #[must_use]
    pub fn always(&self) -> bool {
        self.after.len() as u64 == HUNTS
    }

    /// The median of the seeds that it took, if each hunt found it.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        self.after.get(self.after.len() / 2).copied().filter(|_| self.always())
    }
}

/// Hunts each of these from [`HUNTS`] first seeds, several at a time, and tells `found` of each as it is done.
pub fn survey(
    names: &[&'static str],
    first_seed: u64,
    seeds: u64,
    jobs: usize,
    mut found: impl FnMut(&Hunted),
) -> Vec<Hunted> {
    let next = AtomicUsize::new(0);
    let (tell, hear) = mpsc::sync_channel(names.len());
    let mut all: Vec<Hunted> = std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Whoever listens waits for all.
                    drop(tell.send(hunt_often(name, first_seed, seeds)));
                }
            });
        }
        drop(tell);
        hear.iter().inspect(|hunted| found(hunted)).collect()
    });
    all.sort_by_key(|hunted| names.iter().position(|name| *name == hunted.name));
    all
}

fn hunt_often(name: &'static str, first_seed: u64, seeds: u64) -> Hunted {
    let from = (0..HUNTS).map(|hunt| first_seed + hunt * SEEDS_APART);
    let mut caught: Vec<Caught> = from.map_while(|first_seed| hunt(name, first_seed, seeds)).collect();
    let mut after: Vec<u64> = caught.iter().map(|caught| caught.after).collect();
    after.sort_unstable();
    Hunted { name, after, caught: (!caught.is_empty()).then(|| caught.swap_remove(0)) }
}

/// Does something on this thread with a fault, or none, in force.
#[cfg(feature = "mutants")]
pub(super) fn with<T>(name: Option<&str>, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    use aorta_proto::mutant::{ALL, choose};
    let known = |name: &str| ALL.iter().find(|(known, _)| *known == name).map(|(_, mutant)| *mutant);
    let chosen = name.map(|name| known(name).ok_or_else(|| format!("there is no mutant {name}"))).transpose()?;
    choose(chosen);
    act()
}

#[cfg(not(feature = "mutants"))]
pub(super) fn with<T>(name: Option<&str>, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match name {
        Some(name) => Err(format!("built without the feature `mutants`, so there is no {name}")),
        None => act(),
    }
}
