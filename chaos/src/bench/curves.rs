//! How cost and delays grow: with the rate, with the requests in flight, with the number of nodes, with that of contacts.

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Options;
use super::chart::{Chart, Curve, Scale};
use super::experiment;
use super::finding::Finding;
use super::load::{Mix, Pace, Population};
use super::measure::{Meter, Plan};
use super::progress::Line;
use super::servers::{Kind, Servers};
use super::{nodes::AortaNodes, size};

/// Requests a second of an open loop.
const RATES: [f64; 9] = [500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16_000.0, 32_000.0, 64_000.0, 128_000.0];
/// Requests in flight of a closed loop.
const WINDOWS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// Contacts, up to those asked for.
const SIZES: [u32; 7] = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
/// Nodes of a cluster.
const CLUSTERS: [usize; 8] = [2, 3, 4, 5, 6, 7, 8, 9];
/// Refreshes of such a cluster: in flight where its cost is measured, a second where its delays are.
const CLUSTER_PACES: [Pace; 2] = [Pace::Closed { window: 256 }, Pace::Open { per_s: 2000.0, poisson: false }];
/// Longest p99 at which a higher rate is still tried, milliseconds.
const OVERLOADED_MS: f64 = 500.0;
/// Time of one point.
const LASTS: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
/// Until what a rate too high left behind is done.
const REST: Duration = Duration::from_secs(1);

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// `Aorta` or `Kamailio`.
    pub servers: String,
    /// Requests a second, requests in flight, nodes, or contacts.
    pub at: f64,
    /// What was found there.
    pub finding: Finding,
}

/// All points.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Refreshes at all nodes, open loop.
    pub rates: Vec<Point>,
    /// Refreshes at all nodes, closed loop.
    pub windows: Vec<Point>,
    /// Refreshes at all nodes of clusters: what one costs, and how long it takes where there are few.
    #[serde(default)]
    pub clusters: Vec<Point>,
    /// Memory, join and restart.
    pub sizes: Vec<Point>,
}

impl Curves {
    /// Measures all of them at these servers.
    ///
    /// # Errors
    /// When something cannot be started or ends.
    pub(super) fn measure(meter: &mut Meter, options: &Options, kinds: &[Kind<'_>]) -> anyhow::Result<Self> {
        let mut curves = Self::default();
        let line = Line::begin("curves");
        for kind in kinds {
            line.say(format!("{} at rates", kind.name()));
            curves.rates.extend(paced(
                meter,
                options,
                *kind,
                &RATES.map(|per_s| Pace::Open { per_s, poisson: false }),
            )?);
            line.say(format!("{} at windows", kind.name()));
            curves.windows.extend(paced(meter, options, *kind, &WINDOWS.map(|window| Pace::Closed { window }))?);
            for nodes in CLUSTERS {
                line.say(format!("{} with {nodes} nodes", kind.name()));
                curves.clusters.push(clustered(meter, options, *kind, nodes)?);
            }
            if let Kind::Aorta(program, config) = kind {
                for contacts in SIZES.into_iter().filter(|contacts| *contacts <= options.contacts) {
                    line.say(format!("{contacts} contacts"));
                    let nodes = AortaNodes::place(program, experiment::SIZE_NODES, config)?;
                    let finding = size::measure(meter, nodes, contacts, |what| line.say(what))?.into();
                    curves.sizes.push(Point { servers: kind.name().to_owned(), at: contacts.into(), finding });
                }
            }
        }
        Ok(curves)
    }

    /// Names of files and what is in them.
    pub(super) fn charts(&self) -> Vec<(&'static str, Chart)> {
        let log = Scale::Logarithmic;
        let chart = |title: &str, points: &[Point], across: &str, up: (&str, Scale), figures: &[(&str, &str)]| Chart {
            title: title.to_owned(),
            across: (across.to_owned(), log),
            up: (up.0.to_owned(), up.1),
            curves: figures.iter().flat_map(|(figure, name)| by_servers(points, figure, name)).collect(),
        };
        let linear = |title: &str, points: &[Point], across: &str, up: &str, figures: &[(&str, &str)]| Chart {
            across: (across.to_owned(), Scale::Linear),
            ..chart(title, points, across, (up, Scale::Linear), figures)
        };
        let costs = [("cpu_us", "the cluster"), ("node_us", "a node")];
        let calm = [("calm_p50_ms", "p50"), ("calm_p99_ms", "p99")];
        let nodes = "nodes";
        let quantiles = [("p50_ms", "p50"), ("p99_ms", "p99")];
        let (rate, window, contacts) = ("refreshes a second", "requests in flight", "contacts");
        let bytes =
            [("joined_bytes", "after a join"), ("restarted_bytes", "after a restart"), ("grown_bytes", "registered")];
        let times = [("join_s", "join"), ("join_loaded_s", "join under load"), ("restart_s", "restart")];
        vec![
            ("cost", chart("CPU of the cluster for a refresh", &self.rates, rate, ("µs", log), &[("cpu_us", "")])),
            ("latency-rate", chart("Latency of a refresh, open loop", &self.rates, rate, ("ms", log), &quantiles)),
            (
                "throughput",
                chart("Throughput, closed loop", &self.windows, window, ("refreshes a second", log), &[("per_s", "")]),
            ),
            (
                "latency-window",
                chart("Latency of a refresh, closed loop", &self.windows, window, ("ms", log), &quantiles),
            ),
            ("cluster-cost", linear("CPU for a refresh, by nodes", &self.clusters, nodes, "µs", &costs)),
            ("cluster-latency", linear("Latency of a refresh at 2000/s, by nodes", &self.clusters, nodes, "ms", &calm)),
            ("memory", chart("Memory for each contact", &self.sizes, contacts, ("bytes", Scale::Linear), &bytes)),
            ("join", chart("Until a node is ready", &self.sizes, contacts, ("seconds", log), &times)),
        ]
    }
}

fn by_servers(points: &[Point], figure: &str, name: &str) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for point in points {
        let Some(value) = point.finding.figure(figure) else { continue };
        let name = format!("{} {name}", point.servers).trim().to_owned();
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push((point.at, value)),
            None => curves.push(Curve { name, points: vec![(point.at, value)] }),
        }
    }
    curves
}

/// Refreshes at one cluster, pace by pace, until one is too much for it.
fn paced(meter: &mut Meter, options: &Options, kind: Kind<'_>, paces: &[Pace]) -> anyhow::Result<Vec<Point>> {
    let (servers, mut population) = filled(meter, options, kind, options.nodes)?;
    let mut points = Vec::new();
    for pace in paces {
        let (row, back) = meter.row(&refreshes(options, *pace), &servers, population)?;
        population = back;
        let is_too_much = row.latencies.p99_ms > OVERLOADED_MS || row.answered == 0;
        let at = match pace {
            Pace::Closed { window } => *window as f64,
            Pace::Open { per_s, .. } => *per_s,
        };
        if !is_too_much {
            points.push(Point { servers: kind.name().to_owned(), at, finding: row.into() });
        } else if matches!(pace, Pace::Open { .. }) {
            break;
        }
        thread::sleep(REST);
    }
    Ok(points)
}

/// Refreshes at a cluster of so many nodes.
fn clustered(meter: &mut Meter, options: &Options, kind: Kind<'_>, nodes: usize) -> anyhow::Result<Point> {
    let (servers, population) = filled(meter, options, kind, nodes)?;
    let [closed, open] = CLUSTER_PACES.map(|pace| refreshes(options, pace));
    let (cost, population) = meter.row(&closed, &servers, population)?;
    thread::sleep(REST);
    let (calm, _) = meter.row(&open, &servers, population)?;
    let mut finding = Finding::from(cost.clone()).with("node_us", cost.cpu_us / nodes as f64);
    finding.void.extend(calm.void);
    let finding = finding.latencies("calm_", &calm.latencies);
    Ok(Point { servers: kind.name().to_owned(), at: nodes as f64, finding })
}

/// A cluster at which all phones are registered.
fn filled(meter: &Meter, options: &Options, kind: Kind<'_>, nodes: usize) -> anyhow::Result<(Servers, Population)> {
    let servers = Servers::start(kind, nodes)?;
    let population = Population::new(options.phones);
    let population = meter.fill(&servers.sips(), population, options.phones, servers.fill_window(), |_| ())?;
    Ok((servers, population))
}

fn refreshes(options: &Options, pace: Pace) -> Plan {
    Plan {
        mix: Mix::REFRESH,
        pace,
        one_node: false,
        sources: 16,
        phones: options.phones,
        warm_up: WARM_UP,
        lasts: LASTS,
        ack: true,
        segments: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_servers_has_a_curve_of_its_own() {
        let point = |servers: &str, at, cpu_us| {
            let finding = Finding::default().with("cpu_us", cpu_us);
            Point { servers: servers.to_owned(), at, finding }
        };
        let rates = vec![point("Aorta", 1.0, 5.0), point("Kamailio", 1.0, 50.0), point("Aorta", 2.0, 4.0)];
        let curves = Curves { rates, ..Curves::default() };
        let charts = curves.charts();
        let (_, cost) = charts.iter().find(|(name, _)| *name == "cost").expect("there");
        assert_eq!(cost.curves[0], Curve { name: "Aorta".to_owned(), points: vec![(1.0, 5.0), (2.0, 4.0)] });
        assert_eq!(cost.curves.len(), 2);
        assert!(charts.iter().all(|(_, chart)| chart.draw().contains("<svg")), "though most are empty");
    }
}
