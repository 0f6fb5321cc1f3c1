//! Curves in panels over a time axis, as SVG. It knows nothing of what they mean.

use std::fmt::Write as _;

/// Space under a panel before the next.
const GAP: f64 = 27.0;
/// Ticks of a linear axis at most.
const TICKS_MAX: f64 = 4.0;
/// Lower end of a logarithmic axis.
const LOG_FLOOR: f64 = 0.1;

/// Points of a curve: seconds and value, where there is one.
pub(super) type Points = Vec<(f64, Option<f64>)>;

/// One curve.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    name: String,
    colour: String,
    points: Points,
    is_dashed: bool,
    is_stepped: bool,
}

impl Curve {
    /// A line through points, broken where there is none.
    pub(super) fn line(name: &str, colour: &str, points: Points) -> Self {
        Self { name: name.into(), colour: colour.into(), points, is_dashed: false, is_stepped: false }
    }

    /// Drawn dashed, so that what lies under it is seen.
    pub(super) fn dashed(mut self) -> Self {
        self.is_dashed = true;
        self
    }

    /// A value holds until the next one.
    pub(super) fn stepped(mut self) -> Self {
        self.is_stepped = true;
        self
    }

    fn dashes(&self) -> &'static str {
        if self.is_dashed { " stroke-dasharray=\"5 3\"" } else { "" }
    }

    fn path(&self, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (at_s, value) in &self.points {
            let Some(value) = value else {
                before = None;
                continue;
            };
            let (px, py) = (x(*at_s), y(*value));
            let _ = match before {
                None => write!(path, "M{px:.1} {py:.1}"),
                Some(last) if self.is_stepped => write!(path, "L{px:.1} {last:.1}L{px:.1} {py:.1}"),
                Some(_) => write!(path, "L{px:.1} {py:.1}"),
            };
            before = Some(py);
        }
        path
    }
}

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// From zero.
    Linear,
    /// From zero, ticks at whole numbers only.
    Whole,
    /// Decades from a tenth.
    Logarithmic,
}

impl Axis {
    pub(super) fn linear() -> Self {
        Self::Linear
    }

    pub(super) fn whole() -> Self {
        Self::Whole
    }

    pub(super) fn logarithmic() -> Self {
        Self::Logarithmic
    }

    /// The upper end of an axis on which `most` is seen.
    fn top(self, most: f64) -> f64 {
        match self {
            Self::Logarithmic => 10f64.powf(most.max(1.0).log10().ceil()).max(10.0),
            Self::Whole => step(most.max(1.0)).max(1.0) * (most.max(1.0) / step(most.max(1.0)).max(1.0)).ceil(),
            Self::Linear => step(most.max(1.0)) * (most.max(1.0) / step(most.max(1.0))).ceil(),
        }
    }

    fn ticks(self, top: f64) -> Vec<f64> {
        if self == Self::Logarithmic {
            let decades = (top / LOG_FLOOR).log10().round() as i32;
            return (0..=decades).map(|n| LOG_FLOOR * 10f64.powi(n)).collect();
        }
        let step = if self == Self::Whole { step(top).max(1.0) } else { step(top) };
        let count = (top / step).round() as u32;
        (0..=count).map(|n| f64::from(n) * step).collect()
    }

    /// Where a value lies between the lower end (0) and the upper end (1).
    fn share(self, value: f64, top: f64) -> f64 {
        let share = match self {
            Self::Logarithmic => (value.max(LOG_FLOOR) / LOG_FLOOR).log10() / (top / LOG_FLOOR).log10(),
            Self::Linear | Self::Whole => value / top,
        };
        share.clamp(0.0, 1.0)
    }
}

/// The distance of ticks: 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let rough = most / TICKS_MAX;
    let magnitude = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * magnitude >= rough).unwrap_or(10.0);
    nice * magnitude
}

/// A number as short as can be: 1500 is 1.5k.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", trimmed(v / 1e6)),
        v if v >= 1e3 => format!("{}k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Some curves on one axis.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    title: String,
    height: f64,
    axis: Axis,
    curves: Vec<Curve>,
}

impl Panel {
    pub(super) fn new(title: &str, height: f64, axis: Axis, curves: Vec<Curve>) -> Self {
        Self { title: title.into(), height, axis, curves }
    }

    /// Its height with the title above it.
    pub(super) fn full_height(&self) -> f64 {
        self.height + GAP
    }

    /// Drawn with its title at `top`, between these edges, over so many seconds.
    pub(super) fn draw(&self, top: f64, left: f64, right: f64, end_s: f64) -> String {
        let (from, until) = (top + GAP - 10.0, top + GAP - 10.0 + self.height);
        let values = self.curves.iter().flat_map(|curve| &curve.points).filter_map(|(_, value)| *value);
        let most = self.axis.top(values.fold(0.0, f64::max));
        let x = |at_s: f64| left + at_s / end_s * (right - left);
        let y = |value: f64| until - self.axis.share(value, most) * self.height;
        let mut svg = format!(
            "<text x=\"{left}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n",
            from - 6.0,
            escaped(&self.title)
        );
        for tick in self.axis.ticks(most) {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\" stroke-width=\"0.7\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"9.5\" fill=\"#555\">{}</text>",
                left - 5.0,
                at + 3.4,
                short(tick)
            );
        }
        for curve in &self.curves {
            let path = curve.path(x, y);
            let (colour, dashes) = (&curve.colour, curve.dashes());
            if !path.is_empty() {
                let _ = writeln!(
                    svg,
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dashes}/>"
                );
            }
        }
        svg.push_str(&self.legend(from, right + 14.0));
        svg
    }

    fn legend(&self, top: f64, left: f64) -> String {
        let mut svg = String::new();
        for (index, curve) in self.curves.iter().enumerate() {
            let at = (index as f64).mul_add(15.0, top + 8.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{}\" stroke-width=\"2.2\"{}/>\
                 <text x=\"{:.1}\" y=\"{at:.1}\">{}</text>",
                left + 22.0,
                at - 3.6,
                at - 3.6,
                curve.colour,
                curve.dashes(),
                left + 28.0,
                escaped(&curve.name)
            );
        }
        svg
    }
}

/// Ticks and numbers of the time axis, its line at `y`.
pub(super) fn time_axis(y: f64, left: f64, right: f64, end_s: f64) -> String {
    let distance_s = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0].into_iter().find(|s| end_s / s <= 20.0).unwrap_or(600.0);
    let mut svg = format!("<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#222\"/>\n");
    for n in 0..=(end_s / distance_s) as u32 {
        let at_s = f64::from(n) * distance_s;
        let at = left + at_s / end_s * (right - left);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\" stroke=\"#222\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at_s}</text>",
            y + 4.0,
            y + 16.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">seconds under load</text>", right + 14.0, y + 16.0);
    svg
}

/// Text as it may stand in XML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_above_the_largest_value_and_have_few_ticks() {
        for axis in [Axis::Linear, Axis::Whole] {
            for most in [0.0, 0.3, 1.0, 3.0, 7.0, 99.0, 2_345.0, 10_001.0, 7.3e6] {
                let top = axis.top(most);
                let ticks = axis.ticks(top);
                assert!(top >= most && (2..=7).contains(&ticks.len()), "{axis:?} {most}: {top} {ticks:?}");
            }
        }
        assert_eq!(Axis::Logarithmic.ticks(Axis::Logarithmic.top(350.0)).len(), 5);
        assert!((Axis::Logarithmic.share(10.0, 1000.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.1, 2.0, 1_500.0, 10_000.0, 2.5e6].map(short), ["0", "0.1", "2", "1.5k", "10k", "2.5M"]);
    }

    #[test]
    fn a_curve_breaks_where_there_is_no_value() {
        let curve = Curve::line("x", "red", vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0)), (3.0, Some(4.0))]);
        assert_eq!(curve.path(|x| x, |y| y), "M0.0 1.0M2.0 3.0L3.0 4.0");
        assert_eq!(curve.stepped().path(|x| x, |y| y), "M0.0 1.0M2.0 3.0L3.0 3.0L3.0 4.0");
    }
}
