//! Cuts a failing run down to what it needs to fail. Knows nothing of what failed.

use std::collections::BTreeSet;

use super::plan::{Plan, Step};
use super::{Outcome, run_plan};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 400;

struct Shrinking {
    best: Plan,
    /// Requests of the best run.
    requests: Vec<u64>,
    left: usize,
}

/// A smaller plan that still fails, if `plan` does.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let outcome = run_plan(plan, false);
    if outcome.failure.is_none() {
        return plan.clone();
    }
    let mut shrinking = Shrinking { best: plan.clone(), requests: outcome.requests, left: RUNS_MAX };
    shrinking.steps();
    shrinking.circumstances();
    shrinking.requests();
    shrinking.steps();
    shrinking.best
}

impl Shrinking {
    /// Takes a plan if it fails as well.
    fn takes(&mut self, plan: Plan) -> bool {
        if self.left == 0 || plan == self.best {
            return false;
        }
        self.left -= 1;
        let Outcome { failure, requests, .. } = run_plan(&plan, false);
        if failure.is_some() {
            (self.best, self.requests) = (plan, requests);
        }
        failure.is_some()
    }

    /// Without this or that step, the last first.
    fn steps(&mut self) {
        for at in (0..self.best.steps.len()).rev() {
            let mut plan = self.best.clone();
            plan.steps.remove(at);
            self.takes(plan);
        }
    }

    /// Without drift, without jumps, with less load before.
    fn circumstances(&mut self) {
        let simpler: [fn(&mut Step); 3] =
            [|step| step.drift_ppm.clear(), |step| step.jump = None, |step| step.load_us /= 4];
        for simplify in simpler {
            let mut plan = self.best.clone();
            plan.steps.iter_mut().for_each(simplify);
            self.takes(plan);
        }
    }

    /// Without halves, quarters, … of its requests.
    fn requests(&mut self) {
        let mut chunk = self.requests.len().div_ceil(2);
        while chunk > 0 && self.left > 0 {
            let mut at = 0;
            while at < self.requests.len() && self.left > 0 {
                let until = (at + chunk).min(self.requests.len());
                let kept = self.requests.iter().enumerate().filter(|(index, _)| !(at..until).contains(index));
                let only: BTreeSet<u64> = kept.map(|(_, request)| *request).collect();
                if !self.takes(Plan { only: Some(only), ..self.best.clone() }) {
                    at += chunk;
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }
}
