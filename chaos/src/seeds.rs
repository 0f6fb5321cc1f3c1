//! Many seeds on many threads: what fails is said at once, cut down and kept; what goes well is only counted, so that a
//! hundred thousand seeds take no more memory than a hundred. Judges nothing.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use aorta_chaos::sim::{self, Figures, Outcome, Plan};
use indicatif::{ProgressBar, ProgressStyle};

/// Of so many failing seeds an event file is written.
const KEPT_MAX: usize = 3;

/// So many failing seeds are said; more are counted.
const SAID_MAX: u64 = 100;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    pub(crate) jobs: usize,
    pub(crate) talk: bool,
    /// Where event files go.
    pub(crate) events: PathBuf,
}

/// Whether all seeds ran, and none failed. Ctrl-C ends the run with the figures so far.
pub(crate) fn run(order: &Order) -> anyhow::Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_ctrl_c(Arc::clone(&stop))?;
    let next = AtomicU64::new(order.first);
    let until = order.first.saturating_add(order.seeds);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < until);
    let (tell, told) = sync_channel::<Outcome>(order.jobs * 4);
    let totals = thread::scope(|scope| {
        for _ in 0..order.jobs {
            let (tell, stop, take) = (tell.clone(), &stop, &take);
            scope.spawn(move || {
                while let Some(seed) = take().filter(|_| !stop.load(Ordering::Relaxed)) {
                    if tell.send(sim::run(seed, order.talk)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        listen(order, &told, |seed| {
            scope.spawn(move || match keep(&order.events, &format!("seed-{seed}"), &Plan::of(seed)) {
                Ok(said) => println!("{said}"),
                Err(error) => eprintln!("no event file of seed {seed}: {error:#}"),
            });
        })
    });
    println!("{}", totals.line(order.jobs));
    if totals.done < order.seeds {
        println!("stopped after {} of {} seeds", totals.done, order.seeds);
    }
    Ok(totals.failed == 0 && totals.done == order.seeds)
}

/// What came of them.
struct Totals {
    done: u64,
    failed: u64,
    figures: Figures,
    begun: Instant,
}

impl Totals {
    fn line(&self, jobs: usize) -> String {
        let Self { done, failed, figures, begun } = self;
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        format!("{done} seeds, {failed} failed, in {minutes:.1} min on {jobs} threads; {figures}")
    }
}

/// Counts what comes, and says what fails; the first that do are handed to `keep`.
fn listen(order: &Order, told: &Receiver<Outcome>, mut keep: impl FnMut(u64)) -> Totals {
    let mut totals = Totals { done: 0, failed: 0, figures: Figures::default(), begun: Instant::now() };
    let bar = std::io::stderr().is_terminal().then(|| bar(order.seeds));
    let mut lined = totals.begun;
    for outcome in told {
        totals.done += 1;
        totals.figures.add(&outcome.figures);
        let mut lines = outcome.said;
        if let Some(failure) = &outcome.failure {
            totals.failed += 1;
            if totals.failed <= SAID_MAX {
                lines.push(format!("seed {}: {failure}", outcome.seed));
            }
            if totals.failed <= KEPT_MAX as u64 {
                keep(outcome.seed);
            }
        }
        match &bar {
            Some(bar) => {
                bar.suspend(|| lines.iter().for_each(|line| println!("{line}")));
                bar.set_position(totals.done);
                bar.set_message(format!("{} failed", totals.failed));
            }
            None => lines.iter().for_each(|line| println!("{line}")),
        }
        if bar.is_none() && lined.elapsed() >= LINE_EVERY {
            lined = Instant::now();
            let per_min = totals.done as f64 * 60.0 / totals.begun.elapsed().as_secs_f64();
            eprintln!("{} of {} seeds, {} failed, {per_min:.0} a minute", totals.done, order.seeds, totals.failed);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    totals
}

fn bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {msg}, {per_sec}, {eta} to go");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message("0 failed")
}

/// At the first Ctrl-C no further seed is begun; the second one ends the process.
fn stop_at_ctrl_c(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime for signals")?;
    let wait = move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    };
    thread::Builder::new().name("ctrl-c".into()).spawn(wait).context("no thread for signals")?;
    Ok(())
}

/// Cuts a failing run down and writes it into an event file; where it is, in words.
pub(crate) fn keep(events: &Path, name: &str, plan: &Plan) -> anyhow::Result<String> {
    let plan = sim::shrink(plan);
    std::fs::create_dir_all(events)?;
    let file = events.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(&plan)?)?;
    let requests = plan.only.as_ref().map_or("all its".to_owned(), |only| only.len().to_string());
    Ok(format!("{name} in {} steps and {requests} requests: --replay {}", plan.steps.len(), file.display()))
}
