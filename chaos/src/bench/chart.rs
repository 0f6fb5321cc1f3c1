//! Curves of one quantity over another, as SVG. It knows nothing of what they mean.

use std::fmt::Write as _;

/// Size of a chart and the room around its curves.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 46.0;
/// Ticks of a linear axis, about.
const TICKS: f64 = 5.0;
/// What curves are drawn in, in turns; told apart by those who see no red and green, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// Decades.
    Logarithmic,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves with their axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) across: (String, Scale),
    pub(super) up: (String, Scale),
    pub(super) curves: Vec<Curve>,
}

/// The ends of an axis and its ticks.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let sound = values.filter(|value| value.is_finite() && (*value > 0.0 || scale == Scale::Linear));
        let (least, most) = sound.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if scale == Scale::Linear {
            let step = step(most.max(1e-9) / TICKS);
            return Self { scale, low: 0.0, high: (most.max(1e-9) / step).ceil() * step };
        }
        let low = if least == f64::MAX { 0 } else { least.log10().floor() as i32 };
        let high = (most.max(1e-9).log10().ceil() as i32).max(low + 1);
        Self { scale, low: 10f64.powi(low), high: 10f64.powi(high) }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.scale == Scale::Linear {
            let step = step(self.high / TICKS);
            return (0..=(self.high / step).round() as u32).map(|nth| f64::from(nth) * step).collect();
        }
        let decades = (self.high / self.low).log10().round() as i32;
        (0..=decades).map(|nth| self.low * 10f64.powi(nth)).collect()
    }

    /// Between the lower end (0) and the upper end (1).
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn step(rough: f64) -> f64 {
    let magnitude = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * magnitude).find(|n| *n >= rough * 0.999).unwrap_or(rough)
}

/// 1500 is 1.5k.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    /// The whole picture.
    pub(super) fn draw(&self) -> String {
        let across = Axis::of(self.across.1, self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.0));
        let up = Axis::of(self.up.1, self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1));
        let x = |value: f64| LEFT + across.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"34\" fill=\"#555\">{}</text>\n\
             <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>\n",
            escaped(&self.title),
            escaped(&self.up.0),
            HEIGHT - 10.0,
            escaped(&self.across.0)
        );
        for tick in up.ticks() {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        for tick in across.ticks() {
            let at = x(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                short(tick)
            );
        }
        for (nth, curve) in self.curves.iter().enumerate() {
            svg.push_str(&draw_curve(nth, curve, &x, &y));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw_curve(nth: usize, curve: &Curve, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let colour = COLOURS[nth % COLOURS.len()];
    let places: Vec<(f64, f64)> = curve.points.iter().map(|(across, up)| (x(*across), y(*up))).collect();
    let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut svg =
        format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n", line.join(" "));
    for (x, y) in places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let (left, at) = (WIDTH - RIGHT + 14.0, (nth as f64).mul_add(18.0, TOP + 8.0));
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        left + 20.0,
        left + 26.0,
        at + 4.0,
        escaped(&curve.name)
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_all_values_and_have_few_ticks() {
        for values in [vec![0.0], vec![0.3, 0.4], vec![3.0, 7.0], vec![99.0, 12_345.0], vec![1e3, 1e7]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let axis = Axis::of(scale, values.iter().copied());
                let most = values.iter().copied().fold(0.0, f64::max);
                let ticks = axis.ticks();
                assert!(axis.high >= most && (2..=12).contains(&ticks.len()), "{scale:?} {values:?}: {ticks:?}");
            }
        }
        let axis = Axis::of(Scale::Logarithmic, [10.0, 1000.0].into_iter());
        assert!((axis.share(100.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_chart_has_its_curves_and_names() {
        let curve = Curve { name: "a & b".to_owned(), points: vec![(1.0, 5.0), (10.0, 50.0)] };
        let (across, up) = (("x".to_owned(), Scale::Logarithmic), ("y".to_owned(), Scale::Linear));
        let svg = Chart { title: "t <".to_owned(), across, up, curves: vec![curve] }.draw();
        assert!(svg.contains("a &amp; b") && svg.contains("t &lt;") && svg.matches("<circle").count() == 2, "{svg}");
        assert!(svg.contains(&format!("points=\"{LEFT:.1},")) && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}
