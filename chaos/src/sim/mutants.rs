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

/// Runs one seed after another with a fault in force, until something does not hold that holds in the same seed without it.
#[must_use]
pub fn hunt(mutant: &str, first_seed: u64, seeds: u64) -> Hunt {
    let mut hunt = Hunt::default();
    for index in 0..seeds {
        let sound = Plan::of(first_seed + index);
        let plan = Plan { mutant: Some(mutant.to_owned()), ..sound.clone() };
        let Some(failure) = run_plan(&plan, false).failure else { continue };
        if run_plan(&sound, false).failure.is_some() {
            hunt.failed_without.push(sound.seed);
            continue;
        }
        hunt.caught = Some(Caught { after: index + 1, plan, failure });
        break;
    }
    hunt
}

/// What became of hunting a fault from one first seed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hunt {
    /// The run that found it.
    pub caught: Option<Caught>,
    /// Seeds that fail without it as well: they say nothing of the fault, and something of the nodes or of the judges.
    pub failed_without: Vec<u64>,
}

/// What hunting one mutant came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunted {
    /// Which.
    pub name: &'static str,
    /// How often it was to be hunted.
    pub hunts: usize,
    /// Found after so many seeds, fewest first; one that was not found, if it is so, ends the hunts.
    pub after: Vec<u64>,
    /// The first run that found it.
    pub caught: Option<Caught>,
    /// Seeds that fail without it as well.
    pub failed_without: Vec<u64>,
}

impl Hunted {
    /// Found from each first seed.
    #[must_use]
    pub fn always(&self) -> bool {
        self.after.len() == self.hunts
    }

    /// The median of the seeds that it took, if each hunt found it.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        self.after.get(self.after.len() / 2).copied().filter(|_| self.always())
    }
}

/// The first seeds of the hunts of a survey.
#[must_use]
pub fn first_seeds(first: u64) -> Vec<u64> {
    (0..HUNTS).map(|nth| first + nth * SEEDS_APART).collect()
}

/// Hunts each of these from each first seed, several at a time, and tells `found` of each as it is done.
pub fn survey(
    names: &[&'static str],
    first_seeds: &[u64],
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
                    drop(tell.send(hunt_often(name, first_seeds, seeds)));
                }
            });
        }
        drop(tell);
        hear.iter().inspect(|hunted| found(hunted)).collect()
    });
    all.sort_by_key(|hunted| names.iter().position(|name| *name == hunted.name));
    all
}

fn hunt_often(name: &'static str, first_seeds: &[u64], seeds: u64) -> Hunted {
    let (after, failed_without) = (Vec::new(), Vec::new());
    let mut hunted = Hunted { name, hunts: first_seeds.len(), after, caught: None, failed_without };
    for first_seed in first_seeds {
        let hunt = hunt(name, *first_seed, seeds);
        hunted.failed_without.extend(hunt.failed_without);
        let Some(caught) = hunt.caught else { break };
        hunted.after.push(caught.after);
        hunted.caught.get_or_insert(caught);
    }
    hunted.after.sort_unstable();
    hunted
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
