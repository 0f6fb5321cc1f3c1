//! `aorta-phones`: phones for hand use against nodes on this machine. All the work is in the library.

use aorta_phones::engine::Patience;
use aorta_phones::{Crowd, CrowdPlan, Edge, Fleet, Household, Nodes, Pace, Sbc, Timers, Turn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const USAGE: &str = "aorta-phones WORK [--nodes HOST:PORT,…] [--phones N] [--expires S] [--seed N] [--rate N] [--seconds N] [--edge HOST:PORT]
             [--calls N] [--via HOST:PORT] [--short-expires S]

WORK
  register     every phone registers, spread over the nodes
  query        every phone asks for its contacts at every node
  lookup       every phone is called at every node; each redirect is judged
  unregister   every phone removes its contacts
  clear        every phone removes all contacts of its AoR
  steady       refreshes and lookups at --rate requests a second for --seconds
  crowd        registers, then --rate REGISTERs of all kinds and --calls calls a second for --seconds by phones that
               remember; at last every node is asked about everybody. Calls go through --via, if given. A few phones ask
               for --short-expires seconds and lapse (0: none do)
  call         registers, then calls through a small SBC at --rate calls a second for --seconds

Exit code 0 only if every answer was right. query, lookup, unregister and steady expect the phones of an earlier
register with the same --phones, --seed, --expires and --edge.
";

struct Arguments {
    work: String,
    nodes: Vec<SocketAddr>,
    phones: usize,
    expires: u32,
    rate: u32,
    seconds: u64,
    household: Household,
    calls: u32,
    via: Option<SocketAddr>,
    short_expires: u32,
}

fn arguments() -> anyhow::Result<Option<Arguments>> {
    let mut words = std::env::args().skip(1);
    let Some(work) = words.next().filter(|w| !w.starts_with('-')) else { return Ok(None) };
    let mut read = Arguments {
        work,
        nodes: vec!["127.0.0.1:5060".parse()?],
        phones: 1000,
        expires: 3600,
        rate: 100,
        seconds: 10,
        household: Household::new(1),
        calls: 100,
        via: None,
        short_expires: 0,
    };
    while let Some(name) = words.next() {
        let Some(value) = words.next() else { anyhow::bail!("{name} needs a value") };
        match name.as_str() {
            "--nodes" => read.nodes = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--phones" => read.phones = value.parse()?,
            "--expires" => read.expires = value.parse()?,
            "--rate" => read.rate = value.parse()?,
            "--seconds" => read.seconds = value.parse()?,
            "--seed" => read.household.seed = value.parse()?,
            "--edge" => read.household.edge = Some(value.parse()?),
            "--calls" => read.calls = value.parse()?,
            "--via" => read.via = Some(value.parse()?),
            "--short-expires" => read.short_expires = value.parse()?,
            other => anyhow::bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    Ok(Some(read))
}

/// A crowd, from its first REGISTER to its judgement.
async fn crowd(read: &Arguments) -> anyhow::Result<bool> {
    let mut plan = CrowdPlan::new(read.phones, read.household.seed);
    (plan.per_second, plan.calls_per_second, plan.expires_s) = (read.rate, read.calls, read.expires);
    (plan.via, plan.short_expires_s) = (read.via, read.short_expires);
    if read.short_expires == 0 {
        plan.short_lived_percent = 0;
    }
    let mut crowd = Crowd::new(plan).await?;
    let filled = crowd.fill(&read.nodes).await?;
    println!("registered {} of {} in {:.2?}", filled.bound, read.phones, filled.at);
    let began = cpu_s()?;
    let running = crowd.start(&read.nodes).await?;
    let ends = Instant::now() + Duration::from_secs(read.seconds);
    let (mut looks, mut before) = (tokio::time::interval(Duration::from_secs(1)), running.tally());
    looks.tick().await;
    while Instant::now() < ends {
        looks.tick().await;
        let now = running.tally();
        let latency = now.latency.since(&before.latency);
        println!(
            "{:>5} full {:>4} short {:>4} calls {:>3} lost {:>3} ghosts {:>4} unsure, p50 {:.1?} p99 {:.1?}",
            now.full - before.full,
            now.short - before.short,
            now.calls_completed - before.calls_completed,
            now.lost.count + now.lost_after_short.count,
            now.ghosts.count + now.ghosts_after_short.count,
            now.unsure,
            latency.quantile(0.5),
            latency.quantile(0.99),
        );
        before = now;
    }
    let mut crowd = running.stop().await?;
    println!("{:.2} of a core", (cpu_s()? - began) / read.seconds.max(1) as f64);
    let tally = crowd.tally();
    println!("{tally:#?}");
    let judgement = crowd.judge(&read.nodes).await?;
    println!("asked {}, right {}, bound {}", judgement.asked, judgement.right, judgement.bound);
    judgement.findings.iter().take(10).for_each(|finding| println!("{finding:?}"));
    let accused = tally.lost.count + tally.ghosts.count + tally.wrong.count;
    Ok(accused == 0 && judgement.is_clean() && crowd.malformed().is_empty())
}

/// Processor time of this process so far, seconds, all threads.
fn cpu_s() -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(sum / 1e9)
}

/// Does the work; true if every answer was right.
async fn work(read: Arguments) -> anyhow::Result<bool> {
    if read.work == "crowd" {
        return crowd(&read).await;
    }
    let nodes = Arc::new(Nodes::new(&read.nodes)?);
    let mut household = read.household;
    let edge = if read.work == "call" { Some(Edge::start().await?) } else { None };
    if let Some(edge) = &edge {
        household.edge = Some(edge.address());
    }
    let mut fleet = Fleet::new(household, read.phones);
    // Later runs must have higher CSeqs: hundredths of a second since this machine's start do.
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let now: u64 = uptime.split(' ').next().unwrap_or_default().replace('.', "").parse()?;
    let bound = matches!(read.work.as_str(), "query" | "lookup" | "steady").then_some(read.expires);
    fleet.resume(u32::try_from(now % (1 << 31))?, bound);
    fleet.load.slack_s = read.expires;
    let turn = match read.work.as_str() {
        "register" => Turn::Register(read.expires),
        "query" => Turn::Query,
        "lookup" => Turn::Lookup,
        "unregister" => Turn::Unregister,
        "clear" => Turn::Clear,
        "steady" => {
            let turns = [Turn::Register(read.expires), Turn::Lookup];
            let pace = Pace::new(read.rate, Duration::from_secs(read.seconds));
            let report = fleet.steady(&turns, 0..read.phones, &pace, &nodes).await?;
            println!("{report}");
            return Ok(report.is_clean());
        }
        "call" => {
            let report = fleet.register(read.expires, &read.nodes).await?;
            println!("{report}");
            let sbc = Sbc::start(nodes, Timers::default()).await?;
            let pace = Pace::new(read.rate, Duration::from_secs(read.seconds));
            let calls = sbc.calls(fleet.household(), fleet.bound(), &pace).await;
            println!("{calls}");
            return Ok(report.is_clean() && calls.is_clean());
        }
        other => anyhow::bail!("unknown work {other}\n\n{USAGE}"),
    };
    if !matches!(turn, Turn::Query | Turn::Lookup) {
        let report = fleet.turn(turn, 0..read.phones, &nodes).await?;
        println!("{report}");
        return Ok(report.is_clean());
    }
    let mut clean = true;
    fleet.load.patience = Patience::direct(Duration::from_secs(5));
    for (node, report) in aorta_phones::judges::everyone_answers_for_all(&mut fleet, &read.nodes, turn).await? {
        println!("{node}: {report}");
        clean &= report.is_clean();
    }
    Ok(clean)
}

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    let Some(read) = arguments()? else {
        print!("{USAGE}");
        return Ok(std::process::ExitCode::from(2));
    };
    let clean = work(read).await?;
    Ok(if clean { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}
