//! `aorta status`: asks every node that one of them knows, and says whether all agree.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{Client, Target};
use crate::admin::{ClusterView, MemberView, TableView};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    /// How long to ask again while changes are on their way, milliseconds.
    #[arg(long, default_value_t = 3000, value_name = "MS")]
    within_ms: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let client = Client::of(&options.target)?;
    let deadline = Instant::now() + Duration::from_millis(options.within_ms);
    let survey = loop {
        let survey = Survey::take(&client)?;
        if survey.disagreements().is_empty() || Instant::now() >= deadline {
            break survey;
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let disagreements = survey.disagreements();
    if options.json {
        println!("{}", survey.json(&disagreements));
    } else {
        print!("{}", survey.table());
        survey.remarks().iter().for_each(|remark| println!("! {remark}"));
        match disagreements.as_slice() {
            [] => println!("All {} agree.", survey.rows.len()),
            some => some.iter().for_each(|why| println!("✗ {why}")),
        }
        survey.clock_notes().iter().for_each(|note| println!("! {note}"));
    }
    Ok(ExitCode::from(u8::from(!disagreements.is_empty())))
}

/// What every known node said at one moment.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// By name; `Err` is why a node could not be asked.
    rows: BTreeMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    http: Option<String>,
    /// What others say of it.
    seen_as: String,
    view: Result<ClusterView, String>,
}

impl Survey {
    /// Asks the given node, then every member that any of the answers names.
    pub(super) fn take(first: &Client) -> anyhow::Result<Self> {
        let mut survey = Self::default();
        let view = first.cluster()?;
        let mut pending = vec![(
            view.node.clone(),
            Row { http: Some(first.address().to_owned()), seen_as: view.state.clone(), view: Ok(view) },
        )];
        while let Some((name, row)) = pending.pop() {
            let members = row.view.as_ref().map(|view| view.members.clone()).unwrap_or_default();
            survey.rows.insert(name, row);
            for member in members.into_iter().filter(is_awaited) {
                if survey.rows.contains_key(&member.node) || pending.iter().any(|(name, _)| *name == member.node) {
                    continue;
                }
                let (view, by_gossip) = ask(first, &member);
                let seen_as = seen_as(&member);
                let http = if by_gossip { Some(BY_GOSSIP.to_owned()) } else { member.http };
                pending.push((member.node, Row { http, seen_as, view }));
            }
        }
        Ok(survey)
    }

    /// How many nodes are known.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Everything on which the nodes are not of one mind; empty when they agree.
    pub(super) fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, row) in &self.rows {
            match &row.view {
                Err(why) => found.push(format!("{name} could not be asked: {why}")),
                Ok(view) if view.node != *name => found.push(format!("{name} calls itself {}", view.node)),
                Ok(view) => found.extend(self.complaints(name, view)),
            }
        }
        let views: Vec<&ClusterView> = self.rows.values().filter_map(|row| row.view.as_ref().ok()).collect();
        if let [first, rest @ ..] = views.as_slice() {
            let other = rest.iter().find(|view| view.digest != first.digest);
            found.extend(
                other.map(|view| format!("digests differ: {} and {} hold different tables", first.node, view.node)),
            );
        }
        found
    }

    /// Wall clocks that nodes call wrong. That is no disagreement: contacts do not go by them.
    fn clock_notes(&self) -> Vec<String> {
        let of = |name: &String, view: &ClusterView| {
            let notes = view.clock_notes.iter();
            notes.map(|note| format!("{name} says: {note}")).collect::<Vec<_>>()
        };
        self.rows
            .iter()
            .flat_map(|(name, row)| row.view.as_ref().map(|view| of(name, view)).unwrap_or_default())
            .collect()
    }

    fn complaints(&self, name: &str, view: &ClusterView) -> Vec<String> {
        let mut found = Vec::new();
        if !view.ready {
            let reason = view.reason.as_deref().unwrap_or("no reason given");
            found.push(format!("{name} is not ready: {reason}"));
        }
        for other in self.rows.keys().filter(|other| *other != name) {
            match view.members.iter().find(|member| member.node == *other) {
                None => found.push(format!("{name} does not know {other}")),
                Some(member) if !member.linked => found.push(format!("{name} has no link to {other}")),
                Some(_) => {}
            }
        }
        found
    }

    /// What nodes that serve say of themselves all the same: whom they miss, doubt or refuse.
    fn remarks(&self) -> Vec<String> {
        let views = self.rows.iter().filter_map(|(name, row)| Some((name, row.view.as_ref().ok()?)));
        let reasons =
            views.filter(|(_, view)| view.ready).filter_map(|(name, view)| Some((name, view.reason.as_ref()?)));
        reasons.map(|(name, reason)| format!("{name}: {reason}")).collect()
    }

    /// A line a node.
    pub(super) fn table(&self) -> String {
        let mut lines = vec![COLUMNS.map(str::to_owned)];
        for (name, row) in &self.rows {
            let http = row.http.clone().unwrap_or_default();
            lines.push(match &row.view {
                Ok(view) => [
                    name.clone(),
                    if view.state.is_empty() { "?".to_owned() } else { view.state.clone() },
                    view.contacts.to_string(),
                    view.aors.to_string(),
                    memory(view),
                    view.digest.chars().take(12).collect(),
                    if http == BY_GOSSIP { "?".to_owned() } else { lag(view) },
                    if http == BY_GOSSIP { "?".to_owned() } else { lag_ms(view) },
                    wire(view),
                    http,
                ],
                Err(_) => {
                    let mut line = COLUMNS.map(|_| "?".to_owned());
                    (line[0], line[1]) = (name.clone(), format!("{} (others say)", row.seen_as));
                    line[COLUMNS.len() - 1] = http;
                    line
                }
            });
        }
        aligned(&lines)
    }

    fn json(&self, disagreements: &[String]) -> String {
        let nodes: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|(name, row)| match &row.view {
                Ok(view) => serde_json::json!({
                    "node": name, "state": view.state, "ready": view.ready, "reason": view.reason,
                    "wire_version": view.wire_version, "wire_version_max": view.wire_version_max,
                    "contacts": view.contacts, "aors": view.aors, "digest": view.digest,
                    "location_bytes": view.location_bytes, "memory_max_bytes": view.memory_max_bytes,
                    "memory_full": view.memory_full,
                    "clock_notes": view.clock_notes,
                    "linked": view.members.iter().filter(|member| member.linked).count(),
                }),
                Err(why) => serde_json::json!({ "node": name, "error": why, "seen_as": row.seen_as }),
            })
            .collect();
        serde_json::json!({ "agree": disagreements.is_empty(), "disagreements": disagreements, "nodes": nodes })
            .to_string()
    }
}

/// What the table shows of each node.
const COLUMNS: [&str; 10] = ["NODE", "STATE", "CONTACTS", "AORS", "MEMORY", "DIGEST", "LAG", "LAG MS", "WIRE", "HTTP"];

/// What the node's table takes, and may take if there is a limit, MB.
fn memory(view: &ClusterView) -> String {
    let mb = |bytes: u64| bytes.div_ceil(1 << 20);
    match (view.location_bytes, view.memory_max_bytes) {
        (0, 0) => "?".to_owned(),
        (bytes, 0) => format!("{} MB", mb(bytes)),
        (bytes, max_bytes) => format!("{} of {} MB", mb(bytes), mb(max_bytes)),
    }
}

/// Changes that the slowest member has not acknowledged.
fn lag(view: &ClusterView) -> String {
    view.members.iter().map(|member| member.lag).max().unwrap_or_default().to_string()
}

/// How long the last changes of the slowest member took to get to the node.
fn lag_ms(view: &ClusterView) -> String {
    let lag_us = view.members.iter().filter_map(|member| member.lag_us).max();
    lag_us.map_or_else(|| "-".to_owned(), |lag_us| format!("{:.1}", lag_us as f64 / 1000.0))
}

/// The wire version that a node writes, and the highest that it reads if some member holds it back.
fn wire(view: &ClusterView) -> String {
    match (view.wire_version, view.wire_version_max) {
        (0, 0) => "?".to_owned(),
        (0, reads) => format!("? of {reads}"),
        (writes, reads) if writes < reads => format!("{writes} of {reads}"),
        (writes, _) => writes.to_string(),
    }
}

/// Shown instead of the HTTP address of a node that could not be asked itself.
const BY_GOSSIP: &str = "(by gossip)";

/// Asks a member over HTTP. Where each node serves HTTP on its own host's loopback, somebody else answers, or nobody can be
/// asked: then what the member gossips counts, which is some seconds old at most; the answer says whether it did. One that
/// refuses the connection is not excused: it may be dead.
fn ask(first: &Client, member: &MemberView) -> (Result<ClusterView, String>, bool) {
    let missing = "it is missing (`aorta forget` strikes one that will not come back)";
    let asked = match &member.http {
        Some(http) => match first.to(http).cluster() {
            Err(error) => return (Err(format!("{error:#}")), false),
            Ok(view) if view.node == member.node => return (Ok(view), false),
            Ok(view) => Err(format!("at {http} {} answers", view.node)),
        },
        None if !member.present => Err(missing.to_owned()),
        None => Err("it serves HTTP to its own host only, or none; http.listen says where".to_owned()),
    };
    match &member.table {
        Some(table) if member.present && member.linked => (Ok(gossiped(member, table)), true),
        _ => (asked, false),
    }
}

/// A member's view of itself, as far as gossip has it.
fn gossiped(member: &MemberView, table: &TableView) -> ClusterView {
    let linked =
        |name: &String| MemberView { node: name.clone(), linked: true, present: true, ..MemberView::default() };
    ClusterView {
        node: member.node.clone(),
        boot: member.boot.clone(),
        version: member.version.clone(),
        state: member.state.clone(),
        ready: member.state == READY,
        wire_version_max: member.wire_version_max,
        aors: table.aors,
        contacts: table.contacts,
        location_bytes: table.location_bytes,
        memory_max_bytes: table.memory_max_bytes,
        digest: table.digest.clone(),
        members: table.links.iter().map(linked).collect(),
        ..ClusterView::default()
    }
}

/// State of a member that serves.
const READY: &str = "ready";

/// A member that said good-bye is nobody's loss.
fn is_awaited(member: &MemberView) -> bool {
    member.present || member.state != LEFT
}

/// What a member that could not be asked is called: one that nobody sees any more is not what it last said of itself.
fn seen_as(member: &MemberView) -> String {
    let state = if member.present { &member.state } else { MISSING };
    state.to_owned()
}

/// State of a member that is remembered and not seen.
const MISSING: &str = "missing";

/// State of a member that said good-bye.
const LEFT: &str = "left";

/// Columns two spaces apart.
pub(super) fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(nodes: &[(&str, &str, bool)]) -> Survey {
        let mut survey = Survey::default();
        for (name, digest, ready) in nodes {
            let members = nodes
                .iter()
                .filter(|(other, ..)| other != name)
                .map(|(other, ..)| MemberView { node: (*other).to_owned(), linked: true, ..MemberView::default() })
                .collect();
            let view = ClusterView {
                node: (*name).to_owned(),
                digest: (*digest).to_owned(),
                ready: *ready,
                members,
                ..ClusterView::default()
            };
            survey.rows.insert((*name).to_owned(), Row { http: None, seen_as: String::new(), view: Ok(view) });
        }
        survey
    }

    #[test]
    fn nodes_agree_when_all_are_ready_linked_and_hold_the_same() {
        assert_eq!(survey(&[("a", "1", true), ("b", "1", true)]).disagreements(), [""; 0]);
        assert_eq!(survey(&[("a", "1", true)]).disagreements(), [""; 0]);
    }

    #[test]
    fn whatever_differs_is_named() {
        let found = survey(&[("a", "1", true), ("b", "2", false)]).disagreements();
        assert_eq!(found, ["b is not ready: no reason given", "digests differ: a and b hold different tables"]);
        let mut unlinked = survey(&[("a", "1", true), ("b", "1", true)]);
        if let Ok(view) = &mut unlinked.rows.get_mut("a").expect("there").view {
            view.members[0].linked = false;
        }
        assert_eq!(unlinked.disagreements(), ["a has no link to b"]);
        unlinked.rows.get_mut("b").expect("there").view = Err("refused".to_owned());
        assert_eq!(unlinked.disagreements(), ["a has no link to b", "b could not be asked: refused"]);
    }

    #[test]
    fn what_a_node_that_serves_has_to_say_is_shown() {
        let mut survey = survey(&[("a", "1", true), ("b", "1", false)]);
        for row in survey.rows.values_mut() {
            if let Ok(view) = &mut row.view {
                view.reason = Some("refused: c".to_owned());
            }
        }
        assert_eq!(survey.remarks(), ["a: refused: c"]);
        assert_eq!(survey.disagreements(), ["b is not ready: refused: c"]);
    }

    #[test]
    fn a_dead_member_is_not_shown_by_its_last_words() {
        let member = |present| MemberView { state: "ready".to_owned(), present, ..MemberView::default() };
        assert_eq!((seen_as(&member(true)).as_str(), seen_as(&member(false)).as_str()), ("ready", "missing"));
    }

    #[test]
    fn a_node_that_is_held_back_at_an_older_wire_version_shows_it() {
        let view =
            |wire_version, wire_version_max| ClusterView { wire_version, wire_version_max, ..ClusterView::default() };
        let shown = [(2, 2), (1, 2), (0, 2), (0, 0)].map(|(writes, reads)| wire(&view(writes, reads)));
        assert_eq!(shown, ["2", "1 of 2", "? of 2", "?"]);
    }

    #[test]
    fn memory_is_shown_with_its_limit_if_there_is_one() {
        let view = |location_bytes, memory_max_bytes| {
            memory(&ClusterView { location_bytes, memory_max_bytes, ..ClusterView::default() })
        };
        assert_eq!([view(0, 0), view(5 << 20, 0), view((5 << 20) + 1, 8 << 20)], ["?", "5 MB", "6 of 8 MB"]);
    }

    #[test]
    fn columns_line_up() {
        let lines = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), "c".to_owned()]];
        assert_eq!(aligned(&lines), "a     b\nlong  c\n");
    }
}
