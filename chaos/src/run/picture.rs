//! A story as one picture, SVG: panels over a common time axis, faults as bands through all of them. It judges nothing.

use std::fmt::Write as _;

use super::plot::{self, Axis, Curve, Panel, escaped};
use super::story::{Band, LOOK_S, Sample, Story};
use super::verdict::Verdict;

/// Width of the whole picture.
const WIDTH: f64 = 1240.0;
/// Left edge of the panels; the numbers of their axes stand left of it.
const LEFT: f64 = 78.0;
/// Right edge of the panels; legends stand right of it.
const RIGHT: f64 = 1040.0;
/// Height of a lane of fault labels.
const LANE: f64 = 17.0;
/// Top of the first lane.
const LANES_TOP: f64 = 92.0;
/// Estimated width of a letter of a label.
const LETTER: f64 = 6.1;

/// The picture of a run.
#[must_use]
pub fn draw(story: &Story, verdict: &Verdict) -> String {
    let end_s = story.end_s().max(1.0);
    let x = |at_s: f64| LEFT + at_s / end_s * (RIGHT - LEFT);
    let lanes = lanes(&story.bands, x);
    let lanes_count = lanes.iter().map(|lane| lane.index + 1).max().unwrap_or(0);
    let panels_top = LANES_TOP + lanes_count as f64 * LANE + 14.0;
    let panels = panels(story);
    let panels_end = panels_top + panels.iter().map(Panel::full_height).sum::<f64>();
    let height = panels_end + 46.0;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    svg.push_str(&header(story, verdict));
    for (band, lane) in story.bands.iter().zip(&lanes) {
        svg.push_str(&draw_band(band, lane, x, panels_end));
    }
    for heal in &story.heals {
        if let Some(took_s) = heal.converged_s {
            let at = x((heal.at_s + took_s).min(end_s));
            let _ = writeln!(
                svg,
                "<line class=\"converged\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{panels_top:.1}\" y2=\"{panels_end:.1}\" \
                 stroke=\"#178a3a\" stroke-width=\"1.2\" stroke-dasharray=\"4 3\"/>"
            );
        }
    }
    let mut top = panels_top;
    for panel in &panels {
        svg.push_str(&panel.draw(top, LEFT, RIGHT, end_s));
        top += panel.full_height();
    }
    svg.push_str(&plot::time_axis(panels_end - 10.0, LEFT, RIGHT, end_s));
    svg.push_str(&key(height - 12.0));
    svg.push_str("</svg>\n");
    svg
}

fn header(story: &Story, verdict: &Verdict) -> String {
    let colour = match verdict {
        Verdict::Passed => "#178a3a",
        Verdict::Failed(_) => "#c01c28",
        Verdict::Skipped(_) => "#777",
    };
    let facts = format!(
        "{} phones · {} requests/s · {} nodes · seed {} · {} · convergence at most {:.2} s",
        story.phones,
        story.requests_per_s,
        story.nodes.len(),
        story.seed,
        story.totals,
        story.slowest_s(),
    );
    format!(
        "<text x=\"{LEFT}\" y=\"30\" font-size=\"19\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{}\" y=\"30\" font-size=\"15\" font-weight=\"bold\" fill=\"{colour}\" text-anchor=\"end\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"51\" font-size=\"12.5\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"71\" fill=\"#555\">{}</text>\n",
        escaped(&story.scenario),
        WIDTH - 20.0,
        verdict.word(),
        escaped(&shortened(&story.about, 165)),
        escaped(&facts),
    )
}

/// Where a band's label stands.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lane {
    index: usize,
    /// The label ends at the band's end instead of beginning at its beginning: it would leave the picture.
    from_right: bool,
    left: f64,
    right: f64,
}

/// A lane for each band in which its label touches no other.
fn lanes(bands: &[Band], x: impl Fn(f64) -> f64) -> Vec<Lane> {
    let mut placed: Vec<Lane> = Vec::new();
    for band in bands {
        let (from, until) = (x(band.from_s), x(band.until_s));
        let width = (band.label.chars().count() as f64).mul_add(LETTER, 10.0);
        let from_right = from + width > WIDTH - 10.0;
        let (left, right) = if from_right { (from.min(until - width), until) } else { (from, until.max(from + width)) };
        let free = |index: &usize| {
            placed
                .iter()
                .filter(|lane| lane.index == *index)
                .all(|lane| right + 3.0 < lane.left || lane.right + 3.0 < left)
        };
        let index = (0..).find(free).unwrap_or(0);
        placed.push(Lane { index, from_right, left, right });
    }
    placed
}

fn draw_band(band: &Band, lane: &Lane, x: impl Fn(f64) -> f64, bottom: f64) -> String {
    let (from, until) = (x(band.from_s), x(band.until_s));
    let top = (lane.index as f64).mul_add(LANE, LANES_TOP);
    let (at, anchor) = if lane.from_right { (until - 4.0, "end") } else { (from + 4.0, "start") };
    format!(
        "<rect class=\"band\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#e8a317\" \
         fill-opacity=\"0.13\"/>\n\
         <rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{label:.1}\" fill=\"#e8a317\" fill-opacity=\"0.45\"/>\n\
         <line x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"#b87503\" stroke-width=\"0.8\"/>\n\
         <text x=\"{at:.1}\" y=\"{text:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
        escaped(&band.label),
        width = (until - from).max(1.0),
        height = bottom - top,
        label = LANE - 2.0,
        text = top + 11.5,
    )
}

/// What the marks that go through all panels mean.
fn key(y: f64) -> String {
    format!(
        "<rect x=\"{LEFT}\" y=\"{}\" width=\"22\" height=\"11\" fill=\"#e8a317\" fill-opacity=\"0.45\"/>\
         <text x=\"{}\" y=\"{y}\">a fault, from its beginning to its heal</text>\
         <line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"#178a3a\" stroke-width=\"1.5\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{}\" y=\"{y}\">all nodes ready and holding the same</text>\n",
        y - 9.5,
        LEFT + 28.0,
        LEFT + 310.0,
        LEFT + 336.0,
        y - 4.0,
        y - 4.0,
        LEFT + 343.0,
    )
}

fn panels(story: &Story) -> Vec<Panel> {
    let samples = &story.samples;
    let of = |value: fn(&Sample) -> Option<f64>| -> Vec<(f64, Option<f64>)> {
        samples.iter().map(|sample| (sample.at_s, value(sample))).collect()
    };
    let curve = |name: &str, colour: &str, value: fn(&Sample) -> Option<f64>| Curve::line(name, colour, of(value));
    vec![
        Panel::new(
            "nodes",
            62.0,
            Axis::whole(),
            vec![
                curve("members", "#9a9996", |s| Some(s.members as f64)).dashed().stepped(),
                curve("ready", "#1a5fb4", |s| Some(s.ready as f64)).stepped(),
                curve("suspect", "#c64600", |s| Some(s.suspects as f64)).stepped(),
            ],
        ),
        Panel::new(
            "contacts",
            100.0,
            Axis::linear(),
            vec![
                curve("certainly registered", "#9a9996", |s| Some(s.registered as f64)).dashed(),
                curve("held, most", "#26a269", |s| s.served_most.map(|n| n as f64)),
                curve("held, least", "#1a5fb4", |s| s.served_least.map(|n| n as f64)),
            ],
        ),
        Panel::new(
            "wrong answers, in sum",
            54.0,
            Axis::whole(),
            vec![
                curve("missing", "#c01c28", |s| Some(s.lost as f64)).stepped(),
                curve("ghosts", "#813d9c", |s| Some(s.ghosts as f64)).dashed().stepped(),
            ],
        ),
        Panel::new(
            "answers per second",
            100.0,
            Axis::linear(),
            vec![
                Curve::line("200 in full", "#1a5fb4", rate(samples, |s| s.full)),
                Curve::line("200 short", "#c01c28", rate(samples, |s| s.short)),
                Curve::line("other status", "#e5a50a", rate(samples, |s| s.refused)),
                Curve::line("no answer", "#613583", rate(samples, |s| s.unanswered)).dashed(),
                Curve::line("calls completed", "#26a269", rate(samples, |s| s.calls)),
            ],
        ),
        Panel::new(
            "time to 200, ms",
            100.0,
            Axis::logarithmic(),
            vec![curve("99 of 100", "#c64600", |s| s.p99_ms), curve("median", "#1a5fb4", |s| s.p50_ms)],
        ),
        Panel::new(
            "repair, KiB in sum",
            74.0,
            Axis::linear(),
            vec![curve("sent by all nodes", "#613583", |s| Some(s.repair_bytes as f64 / 1024.0))],
        ),
        Panel::new(
            "largest node, MiB",
            54.0,
            Axis::linear(),
            vec![curve("memory", "#5e5c64", |s| Some(s.rss_mib as f64))],
        ),
    ]
}

/// By how much a count grew per second from look to look; one right after another says nothing of a second.
fn rate(samples: &[Sample], count: fn(&Sample) -> u64) -> Vec<(f64, Option<f64>)> {
    let Some(mut before) = samples.first() else { return Vec::new() };
    let mut points = Vec::new();
    for after in samples {
        let seconds = after.at_s - before.at_s;
        if seconds >= LOOK_S / 2.0 {
            points.push((after.at_s, Some(count(after).saturating_sub(count(before)) as f64 / seconds)));
            before = after;
        }
    }
    points
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(most - 1).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::story::Heal;

    fn band(label: &str, from_s: f64, until_s: f64) -> Band {
        Band { label: label.into(), from_s, until_s, ..Band::default() }
    }

    fn sample_story() -> Story {
        let sample = |n: u32| {
            let at_s = f64::from(n) * 0.25;
            let down = (10.0..16.0).contains(&at_s);
            let full = (at_s * 2000.0) as u64;
            Sample {
                at_s,
                ready: if down { 2 } else { 3 },
                members: 3,
                registered: 10_000 + u64::from(n) * 3,
                served_least: (!down).then_some(9_990 + u64::from(n) * 3),
                served_most: Some(10_020 + u64::from(n) * 3),
                full,
                short: if at_s > 10.5 { 57 } else { 0 },
                calls: (at_s * 100.0) as u64,
                p50_ms: Some(0.4),
                p99_ms: (!down).then_some(2.0 + f64::from(n % 7)),
                repair_bytes: if at_s > 16.0 { 700_000 } else { 12_000 },
                rss_mib: 80 + u64::from(n / 20),
                ..Sample::default()
            }
        };
        Story {
            scenario: "made-up & drawn".into(),
            about: "What a picture shows, <made up>.".into(),
            phones: 10_000,
            requests_per_s: 2_000,
            nodes: vec!["node1".into(), "node2".into(), "node3".into()],
            samples: (0..160).map(sample).collect(),
            bands: vec![
                band("kill -9 node2", 10.0, 16.0),
                band("10 % lost, 200 ± 100 ms node1 – node3", 12.0, 14.0),
                band("cut node3 ↮ others <both>", 34.0, 39.0),
            ],
            heals: vec![Heal { of: "kill".into(), at_s: 16.0, converged_s: Some(0.75), ..Heal::default() }],
            ..Story::default()
        }
    }

    /// Whether every element that is opened is closed again, in order, and no text has a bare `&` or `<`.
    fn well_formed(svg: &str) -> Result<(), String> {
        let mut open: Vec<&str> = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').ok_or_else(|| format!("<{piece} has no end"))?;
            if text.split('&').skip(1).any(|rest| !["amp;", "lt;", "gt;", "quot;"].iter().any(|e| rest.starts_with(e)))
            {
                return Err(format!("a bare & in {text}"));
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap_or(tag));
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("still open: {open:?}")) }
    }

    #[test]
    fn a_picture_is_well_formed_and_shows_every_band() {
        let svg = draw(&sample_story(), &Verdict::Passed);
        assert_eq!(well_formed(&svg), Ok(()));
        assert_eq!(svg.matches("class=\"band\"").count(), 3);
        for label in ["kill -9 node2", "10 % lost, 200 ± 100 ms node1 – node3", "cut node3 ↮ others &lt;both&gt;"]
        {
            assert!(svg.contains(label), "{label} is missing");
        }
        assert_eq!(svg.matches("class=\"converged\"").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        if let Some(file) = std::env::var_os("AORTA_PICTURE") {
            std::fs::write(file, svg).expect("written");
        }
    }

    #[test]
    fn a_story_without_samples_is_drawn_too() {
        let svg = draw(&Story::default(), &Verdict::Failed(vec!["x".into()]));
        assert_eq!(well_formed(&svg), Ok(()));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn well_formedness_can_fail() {
        assert!(well_formed("<svg><g></svg>").is_err());
        assert!(well_formed("<svg>a & b</svg>").is_err());
    }

    #[test]
    fn labels_never_touch() {
        let bands: Vec<Band> =
            (0..12).map(|n| band("a label of some length", f64::from(n), f64::from(n) + 5.0)).collect();
        let lanes = lanes(&bands, |at_s| LEFT + at_s * 60.0);
        for (index, one) in lanes.iter().enumerate() {
            assert!(one.left >= 0.0 && one.right <= WIDTH, "{one:?}");
            for other in &lanes[index + 1..] {
                assert!(
                    one.index != other.index || one.right < other.left || other.right < one.left,
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
