//! `aorta-phones`: phones for hand use against nodes on this machine. All the work is in the library.

use aorta_phones::engine::Patience;
use aorta_phones::{Edge, Fleet, Household, Nodes, Pace, Sbc, Timers, Turn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const USAGE: &str = "aorta-phones WORK [--nodes HOST:PORT,…] [--phones N] [--expires S] [--seed N] [--rate N] [--seconds N] [--edge HOST:PORT]

WORK
  register     every phone registers, spread over the nodes
  query        every phone asks for its contacts at every node
  lookup       every phone is called at every node; each redirect is judged
  unregister   every phone removes its contacts
  clear        every phone removes all contacts of its AoR
  steady       refreshes and lookups at --rate requests a second for --seconds
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
            other => anyhow::bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    Ok(Some(read))
}

/// Does the work; true if every answer was right.
async fn work(read: Arguments) -> anyhow::Result<bool> {
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
