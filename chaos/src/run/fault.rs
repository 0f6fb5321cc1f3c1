//! What can be done to a cluster, as scenario files name it, and to whom. It does none of it.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::scenario::Scenario;

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// kill -9; the heal starts it again.
    Kill {
        /// Whom.
        who: Who,
        /// What it finds on its disk when it comes back.
        #[serde(default)]
        disk: Disk,
        /// Time after the cycle's beginning, milliseconds.
        #[serde(default)]
        after_ms: u64,
    },
    /// kill -9 and a start at once: a join that falls into the other faults of the cycle.
    Rejoin {
        /// Whom.
        who: Who,
        /// What it finds on its disk.
        #[serde(default)]
        disk: Disk,
    },
    /// SIGSTOP; the heal sends SIGCONT.
    Stop {
        /// Whom.
        who: Who,
    },
    /// No packet goes between these; the heal mends it.
    Cut {
        /// One side.
        from: Who,
        /// The other.
        to: Who,
        /// Only packets of the first side to the second are lost.
        #[serde(default)]
        one_way: bool,
        /// Cut and mended by turns, each for this long, milliseconds; 0: cut throughout.
        #[serde(default)]
        flap_ms: u64,
    },
    /// Links between these are bad in both directions; the heal mends them.
    Link {
        /// One side.
        from: Who,
        /// The other.
        to: Who,
        /// How bad.
        #[serde(flatten)]
        quality: Quality,
    },
    /// The wall clock of a running node jumps; the heal lets it jump back.
    JumpClock {
        /// Whose.
        who: Who,
        /// By how much, seconds.
        by_s: i64,
    },
    /// The disk is full; the heal makes room.
    FillDisk {
        /// Whose.
        who: Who,
    },
    /// New nodes are started, and stay.
    Add {
        /// How many.
        count: usize,
    },
    /// The last nodes are drained for good.
    Remove {
        /// How many.
        count: usize,
    },
    /// Nodes are drained and started anew, one after the other, with this build.
    Roll {
        /// Whom.
        who: Who,
        /// The build that they come back with; as before when it is missing.
        build: Option<super::scenario::Build>,
    },
    /// A peer with a certificate of the cluster sends frames as fast as it can.
    Flood {
        /// To whom.
        who: Who,
        /// Frames that are none, instead of valid ones.
        #[serde(default)]
        garbage: bool,
    },
    /// Every phone registers anew with another Call-ID, as fast as it can.
    Storm {},
    /// So many phones of their own register at one node, as fast as they can.
    Burst {
        /// Where.
        at: Who,
        /// How many.
        phones: usize,
    },
    /// So many phones register at one node, and unregister at the next as soon as they have their 200.
    Chase {
        /// How many.
        phones: usize,
    },
    /// The crowd is silent; the heal lets it go on.
    Quiet {},
}

/// Whom a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// This node, counted from 0; `node1` in a file.
    Node(usize),
    /// The node whose turn it is: another in each cycle.
    Turn,
    /// The one after it.
    Next,
    /// All nodes but the one whose turn it is.
    Others,
    /// All nodes.
    All,
    /// The node that sends most to the one whose turn it is: its donor.
    Donor,
    /// The phones and their SBC.
    Phones,
}

/// What a node finds on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// What it wrote.
    #[default]
    Kept,
    /// Nothing.
    Lost,
    /// What it had written at the beginning of the scenario.
    Older,
    /// Snapshot files cut in half; the log, where there is no snapshot yet.
    Cut,
    /// Flipped bytes in its log.
    Flipped,
}

/// How bad a link is, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// Added delay, milliseconds.
    pub delay_ms: u64,
    /// By how much that varies up and down, milliseconds.
    pub jitter_ms: u64,
    /// Share of packets lost, percent.
    pub loss_percent: f64,
    /// Share of packets that later ones overtake, percent.
    pub reorder_percent: f64,
    /// Share of packets that come twice, percent.
    pub duplicate_percent: f64,
    /// Bandwidth, Mbit/s; 0: all there is.
    pub mbit_per_s: f64,
}

impl TryFrom<String> for Who {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = [
            ("turn", Self::Turn),
            ("next", Self::Next),
            ("others", Self::Others),
            ("all", Self::All),
            ("donor", Self::Donor),
            ("phones", Self::Phones),
        ];
        let number = text.strip_prefix("node").and_then(|digits| digits.parse::<usize>().ok()).filter(|n| *n > 0);
        match (number, named.iter().find(|(name, _)| *name == text)) {
            (Some(number), _) => Ok(Self::Node(number - 1)),
            (None, Some((_, who))) => Ok(*who),
            (None, None) => Err(format!("\"{text}\": node1, node2, …, turn, next, others, all, donor or phones")),
        }
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        match who {
            Who::Node(index) => format!("node{}", index + 1),
            Who::Turn => "turn".to_owned(),
            Who::Next => "next".to_owned(),
            Who::Others => "others".to_owned(),
            Who::All => "all".to_owned(),
            Who::Donor => "donor".to_owned(),
            Who::Phones => "phones".to_owned(),
        }
    }
}

impl Who {
    /// The nodes meant in the cycle with this turn, of the nodes that are members; none for phones and for the donor,
    /// which only shows while it gives.
    #[must_use]
    pub fn nodes(self, turn: usize, members: &[usize]) -> Vec<usize> {
        let nth = |n: usize| members.get(n % members.len().max(1)).copied();
        match self {
            Self::Node(index) => vec![index],
            Self::Turn => nth(turn).into_iter().collect(),
            Self::Next => nth(turn + 1).into_iter().collect(),
            Self::Others => members.iter().copied().filter(|node| Some(*node) != nth(turn)).collect(),
            Self::All => members.to_vec(),
            Self::Donor | Self::Phones => Vec::new(),
        }
    }
}

impl Fault {
    /// Whom it names.
    fn named(&self) -> Vec<Who> {
        match self {
            Self::Kill { who, .. } | Self::Rejoin { who, .. } | Self::Stop { who } | Self::JumpClock { who, .. } => {
                vec![*who]
            }
            Self::FillDisk { who } | Self::Roll { who, .. } | Self::Flood { who, .. } => vec![*who],
            Self::Cut { from, to, .. } | Self::Link { from, to, .. } => vec![*from, *to],
            Self::Burst { at, .. } => vec![*at],
            Self::Add { .. } | Self::Remove { .. } | Self::Storm {} | Self::Chase { .. } | Self::Quiet {} => Vec::new(),
        }
    }

    /// Whether it can be done in this scenario.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let nodes = scenario.nodes_at_most();
        for who in self.named() {
            if let Who::Node(index) = who {
                ensure!(index < nodes, "node{}: there are {nodes}", index + 1);
            }
            let phones_are_meant = matches!(self, Self::Cut { .. } | Self::Link { .. });
            ensure!(phones_are_meant || who != Who::Phones, "phones can only be cut off, or have bad links");
            ensure!(matches!(self, Self::Kill { .. }) || who != Who::Donor, "a donor can only be killed");
        }
        if let Self::FillDisk { .. } = self {
            ensure!(scenario.disk_mib.is_some(), "fill-disk wants disk_mib");
        }
        if let Self::Link { quality, .. } = self {
            ensure!(*quality != Quality::default(), "a link that is bad in no way");
            ensure!(quality.jitter_ms <= quality.delay_ms, "jitter_ms above delay_ms");
        }
        Ok(())
    }

    /// Nodes that it adds.
    #[must_use]
    pub fn adds(&self) -> usize {
        if let Self::Add { count } = self { *count } else { 0 }
    }

    /// Whether nodes that all answer phones cannot hear one another meanwhile: each side then answers what it knows.
    #[must_use]
    pub fn splits(&self) -> bool {
        matches!(self, Self::Cut { from, to, .. } if *from != Who::Phones && *to != Who::Phones)
    }

    /// Whether it needs network namespaces.
    #[must_use]
    pub fn needs_network(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Link { .. })
            || matches!(self, Self::Kill { who: Who::Donor, .. } | Self::FillDisk { .. })
    }

    /// What the picture writes on its band; `names` gives a node's name for whom the turn means.
    #[must_use]
    pub fn label(&self, names: impl Fn(Who) -> String) -> String {
        let on_disk = |disk: &Disk| match disk {
            Disk::Kept => "",
            Disk::Lost => ", disk lost",
            Disk::Older => ", older disk",
            Disk::Cut => ", snapshot cut",
            Disk::Flipped => ", log flipped",
        };
        match self {
            Self::Kill { who, disk, .. } => format!("kill -9 {}{}", names(*who), on_disk(disk)),
            Self::Rejoin { who, disk } => format!("rejoin {}{}", names(*who), on_disk(disk)),
            Self::Stop { who } => format!("SIGSTOP {}", names(*who)),
            Self::Cut { from, to, one_way, flap_ms } => {
                let arrow = if *one_way { "→" } else { "↮" };
                let how = if *flap_ms > 0 { "flap" } else { "cut" };
                format!("{how} {} {arrow} {}", names(*from), names(*to))
            }
            Self::Link { from, to, quality } => format!("{} {} – {}", quality.label(), names(*from), names(*to)),
            Self::JumpClock { who, by_s } => format!("clock {by_s:+} s {}", names(*who)),
            Self::FillDisk { who } => format!("disk full {}", names(*who)),
            Self::Add { count } => format!("add {count}"),
            Self::Remove { count } => format!("drain {count}"),
            Self::Roll { who, build: None } => format!("restart {}", names(*who)),
            Self::Roll { who, build: Some(build) } => format!("{build:?} build on {}", names(*who)).to_lowercase(),
            Self::Flood { who, garbage: false } => format!("flood {}", names(*who)),
            Self::Flood { who, garbage: true } => format!("garbage to {}", names(*who)),
            Self::Storm {} => "restart storm".to_owned(),
            Self::Burst { at, phones } => format!("{phones} new at {}", names(*at)),
            Self::Chase { phones } => format!("{phones} chased"),
            Self::Quiet {} => "no load".to_owned(),
        }
    }
}

impl Quality {
    fn label(&self) -> String {
        let mut parts = Vec::new();
        if self.delay_ms > 0 {
            let jitter = if self.jitter_ms > 0 { format!(" ± {}", self.jitter_ms) } else { String::new() };
            parts.push(format!("{}{jitter} ms", self.delay_ms));
        }
        let shares =
            [(self.loss_percent, "lost"), (self.reorder_percent, "reordered"), (self.duplicate_percent, "twice")];
        parts.extend(shares.iter().filter(|(share, _)| *share > 0.0).map(|(share, what)| format!("{share} % {what}")));
        if self.mbit_per_s > 0.0 {
            parts.push(format!("{} Mbit/s", self.mbit_per_s));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round() {
        let members = [0, 1, 4];
        assert_eq!(Who::Turn.nodes(4, &members), [1]);
        assert_eq!(Who::Next.nodes(2, &members), [0]);
        assert_eq!(Who::Others.nodes(2, &members), [0, 1]);
        assert_eq!(Who::All.nodes(0, &members), members);
    }

    #[test]
    fn names_go_both_ways() {
        for text in ["node1", "turn", "next", "others", "all", "donor", "phones"] {
            assert_eq!(String::from(Who::try_from(text.to_owned()).expect("known")), text);
        }
        assert!(Who::try_from("node0".to_owned()).is_err());
        assert!(Who::try_from("everybody".to_owned()).is_err());
    }
}
