//! Builds of several wire versions in one cluster: which one each machine starts next, and what may be written to whom. Its
//! model is what processes said of themselves; it asks no node what it thinks.

use std::collections::BTreeMap;

use aorta_proto::frame::VERSION_MAX;

/// Of so many steps in 256, those in which a machine gets another build than the newest.
const OLDER_IN_256: u8 = 80;

/// Which build each machine has, and what each process has heard of the others.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// What the next process of each machine reads and writes at most.
    installed: Vec<u8>,
    /// The same of its last or present process.
    running: Vec<u8>,
    /// What the process of a machine heard last in a Hello of another.
    heard: Vec<BTreeMap<usize, u8>>,
    /// The last process of the machine said good-bye; who heard it tells others.
    parted: Vec<bool>,
}

/// The builds that the machines get in one step.
pub(super) fn choose(rng: &mut fastrand::Rng, nodes: usize) -> Vec<u8> {
    (0..nodes).map(|_| if rng.u8(..) < OLDER_IN_256 { rng.u8(1..=VERSION_MAX) } else { VERSION_MAX }).collect()
}

impl Versions {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            installed: vec![VERSION_MAX; nodes],
            running: vec![VERSION_MAX; nodes],
            heard: vec![BTreeMap::new(); nodes],
            parted: vec![false; nodes],
        }
    }

    /// Puts builds on machines; a process that runs goes on as it is.
    pub(super) fn install(&mut self, builds: &[u8]) {
        for (installed, build) in self.installed.iter_mut().zip(builds) {
            *installed = *build;
        }
    }

    /// A process starts; the highest version that it may read and write.
    pub(super) fn starts(&mut self, node: usize) -> u8 {
        self.heard[node].clear();
        if std::mem::take(&mut self.parted[node]) {
            self.heard.iter_mut().for_each(|heard| {
                heard.remove(&node);
            });
        }
        self.running[node] = self.installed[node];
        self.running[node]
    }

    /// A Hello was accepted.
    pub(super) fn hears(&mut self, node: usize, of: usize) {
        let version = self.running[of];
        self.heard[node].insert(of, version);
    }

    /// A node said good-bye: of those who hear it nobody waits for it.
    pub(super) fn parts(&mut self, node: usize, hear: &[usize]) {
        self.parted[node] = true;
        for other in hear {
            self.heard[*other].remove(&node);
        }
    }

    /// No process is sent a frame above what it said that it reads.
    pub(super) fn judge_read(&self, node: usize, frame: &[u8]) -> Result<(), String> {
        let reads = self.running[node];
        match frame.first() {
            Some(&version) if version > reads => {
                Err(format!("n{} reads wire version {reads} and was sent version {version}", node + 1))
            }
            _ => Ok(()),
        }
    }

    /// No node writes a version that another did not offer when it was last heard, there now or not, unless the other has
    /// said good-bye, or been replaced meanwhile by a build that does.
    pub(super) fn judge_written(&self, node: usize, frame: &[u8]) -> Result<(), String> {
        let version = frame.first().copied().unwrap_or_default();
        let holds_back =
            |(of, heard): &(&usize, &u8)| version > **heard && version > self.running[**of] && !self.parted[**of];
        match self.heard[node].iter().find(holds_back) {
            Some((of, heard)) => {
                let (node, of) = (node + 1, of + 1);
                Err(format!("n{node} writes wire version {version}, though n{of} read {heard} when it was last heard"))
            }
            None => Ok(()),
        }
    }

    /// What a node may write instead as long as nobody told it that an absent one has said good-bye.
    pub(super) fn remembered(&self, node: usize, runs: impl Fn(usize) -> bool) -> u8 {
        let absent = self.heard[node].iter().filter(|(of, _)| !runs(**of)).map(|(_, version)| *version);
        absent.chain([self.common(&runs)]).min().unwrap_or(VERSION_MAX)
    }

    /// What all that run write once they have heard each other.
    pub(super) fn common(&self, runs: impl Fn(usize) -> bool) -> u8 {
        let running = self.running.iter().enumerate().filter(|(node, _)| runs(*node));
        running.map(|(_, version)| *version).min().unwrap_or(VERSION_MAX)
    }
}
