//! Deliberate faults in the nodes, and after how many seeds the simulator finds each. Which there are is a matter of
//! `aorta_proto::mutant`; without the feature `mutants` there are none.

use super::plan::Plan;
use super::run_plan;

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
