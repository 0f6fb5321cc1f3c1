//! Whether all nodes are ready and hold the same, under load. It heals nothing.
//!
//! Under load a change is always on its way somewhere, so digests taken one after the other differ although nothing is
//! missing. Once all nodes say that they are ready the load is therefore held for a moment: what is in flight arrives
//! within it, what is missing does not. Digests that are then equal speak for every record, not for a sample. When they
//! still differ the load goes on, and a moment later it is held again.

use std::thread;
use std::time::{Duration, Instant};

use aorta::admin::ClusterView;

use crate::lab::Lab;

/// Longest hold: what is in flight takes a few milliseconds, and a reply waits at most `ack_timeout_ms`.
const HOLD: Duration = Duration::from_millis(200);
/// Load between two holds.
const GO_ON: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How much longer than the bound it is waited, so that the report says how late it was.
const LATE: Duration = Duration::from_secs(20);

/// When it was so, counted from the heal.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Convergence {
    /// All ready.
    pub(super) ready_s: Option<f64>,
    /// All hold the same.
    pub(super) converged_s: Option<f64>,
    /// Who says what when they do not.
    pub(super) disagreement: String,
}

/// Waits until these nodes are ready and hold the same. `hold` stops the load, or lets it go on.
pub(super) fn wait(lab: &Lab, nodes: &[usize], healed: Instant, bound_s: f64, hold: impl Fn(bool)) -> Convergence {
    let deadline = healed + Duration::from_secs_f64(bound_s) + LATE;
    let mut found = Convergence::default();
    loop {
        let views = views(lab, nodes);
        if all_ready(&views) {
            let _ = found.ready_s.get_or_insert_with(|| healed.elapsed().as_secs_f64());
            hold(true);
            found.converged_s = until_equal(lab, nodes, Instant::now() + HOLD, healed);
            hold(false);
        }
        if found.converged_s.is_some() || Instant::now() >= deadline {
            if found.converged_s.is_none() {
                found.disagreement = disagreement(&views);
            }
            return found;
        }
        thread::sleep(if all_ready(&views) { GO_ON } else { LOOK_AGAIN });
    }
}

fn until_equal(lab: &Lab, nodes: &[usize], deadline: Instant, healed: Instant) -> Option<f64> {
    loop {
        let views = views(lab, nodes);
        if all_ready(&views) && agree(&views) {
            return Some(healed.elapsed().as_secs_f64());
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// What each node says of itself and the others, all asked at once; `None` from a node that does not answer.
pub(super) fn views(lab: &Lab, nodes: &[usize]) -> Vec<Option<ClusterView>> {
    thread::scope(|scope| {
        let ask = |node: usize| scope.spawn(move || lab.at(node, |client| client.cluster().ok()).ok().flatten());
        let asked: Vec<_> = nodes.iter().map(|node| ask(*node)).collect();
        asked.into_iter().map(|answer| answer.join().ok().flatten()).collect()
    })
}

fn all_ready(views: &[Option<ClusterView>]) -> bool {
    views.iter().all(|view| view.as_ref().is_some_and(|view| view.ready))
}

fn agree(views: &[Option<ClusterView>]) -> bool {
    let mut digests = views.iter().flatten().map(|view| &view.digest);
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

fn disagreement(views: &[Option<ClusterView>]) -> String {
    let said = |view: &Option<ClusterView>| match view {
        None => "no answer".to_owned(),
        Some(ClusterView { node, ready: false, reason, .. }) => {
            format!("{node} not ready: {}", reason.as_deref().unwrap_or("no reason"))
        }
        Some(ClusterView { node, digest, contacts, .. }) => {
            format!("{node} holds {contacts} contacts, digest {digest}")
        }
    };
    views.iter().map(said).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ready: bool, digest: &str) -> Option<ClusterView> {
        Some(ClusterView { node: "node1".into(), ready, digest: digest.into(), ..ClusterView::default() })
    }

    #[test]
    fn agreement_wants_every_node() {
        assert!(all_ready(&[view(true, "a"), view(true, "b")]));
        assert!(!all_ready(&[view(true, "a"), None]));
        assert!(!all_ready(&[view(true, "a"), view(false, "a")]));
        assert!(agree(&[view(true, "a"), view(true, "a")]));
        assert!(!agree(&[view(true, "a"), view(true, "b")]));
        assert!(disagreement(&[None, view(false, "a")]).contains("node1 not ready"));
    }
}
