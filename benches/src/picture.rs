//! A picture of how figures grow, both axes logarithmic: SVG, its colours such that it can be read on light and on
//! dark pages.

use std::fmt::Write as _;

/// One half of the picture.
pub struct Panel {
    /// What it shows.
    pub title: &'static str,
    /// The unit of the figures.
    pub unit: Unit,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line of a panel.
pub struct Line {
    /// Which of the names it belongs to.
    pub colour: usize,
    /// Whether it is dashed.
    pub dashed: bool,
    /// Where it goes: both coordinates more than 0, at least one point.
    pub points: Vec<(f64, f64)>,
}

/// The unit of a panel's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
}

const TOP: f64 = 78.0;
const LEFT: f64 = 62.0;
const PANEL_WIDTH: f64 = 370.0;
const PANEL_HEIGHT: f64 = 260.0;
/// From the left edge of a panel to that of the next one.
const PITCH: f64 = PANEL_WIDTH + 80.0;
const HEIGHT: f64 = TOP + PANEL_HEIGHT + 48.0;
/// Neither too light for a white page nor too dark for a black one.
const COLOURS: [&str; 4] = ["#2f81f7", "#2da44e", "#d4730b", "#a371f7"];
const INK: &str = "#768390";

/// Draws `panels` side by side. `names` says what the colours are, at most four, and `across` what is counted from
/// left to right.
#[must_use]
pub fn draw(names: &[&str], across: &str, panels: &[Panel]) -> String {
    let mut svg = String::new();
    let width = PITCH.mul_add(float(panels.len()), LEFT) - (PITCH - PANEL_WIDTH) + 16.0;
    let mut put = |line: &str| {
        svg.push_str(line);
        svg.push('\n');
    };
    put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {HEIGHT:.0}\" width=\"{width:.0}\" \
         height=\"{HEIGHT:.0}\" role=\"img\">"
    ));
    put(&format!("<style>text{{font:12px system-ui,sans-serif;fill:{INK}}}</style>"));
    for (at, (name, colour)) in names.iter().zip(COLOURS).enumerate() {
        let x = 110.0_f64.mul_add(float(at), LEFT);
        let end = x + 22.0;
        put(&format!(
            r#"<line x1="{x:.0}" y1="20" x2="{end:.0}" y2="20" stroke="{colour}" stroke-width="3"/>"#
        ));
        put(&format!(r#"<text x="{:.0}" y="24">{name}</text>"#, x + 28.0));
    }
    for (at, panel) in panels.iter().enumerate() {
        put(&panel.draw(PITCH.mul_add(float(at), LEFT), across));
    }
    put("</svg>");
    svg
}

impl Panel {
    fn draw(&self, left: f64, across: &str) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let columns = Axis::over(points().map(|(x, _)| x), false);
        let rows = Axis::over(points().map(|(_, y)| y), true);
        let x = |value: f64| columns.share(value).mul_add(PANEL_WIDTH, left);
        let y = |value: f64| (1.0 - rows.share(value)).mul_add(PANEL_HEIGHT, TOP);
        let (right, bottom) = (left + PANEL_WIDTH, TOP + PANEL_HEIGHT);

        let mut svg = format!(r#"<text x="{left:.0}" y="{:.0}">{}</text>"#, TOP - 18.0, self.title);
        for value in rows.decades() {
            let at = y(value);
            let label = self.unit.label(value);
            let _ = write!(
                svg,
                "\n<line x1=\"{left:.0}\" y1=\"{at:.1}\" x2=\"{right:.0}\" y2=\"{at:.1}\" stroke=\"{INK}\" \
                 stroke-opacity=\"0.3\"/>\n<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                at + 4.0
            );
        }
        let mut seen: Vec<f64> = points().map(|(x, _)| x).collect();
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        for value in seen {
            let _ = write!(
                svg,
                "\n<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{value:.0}</text>",
                x(value),
                bottom + 18.0
            );
        }
        let _ = write!(
            svg,
            "\n<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{across}</text>",
            left + PANEL_WIDTH / 2.0,
            bottom + 38.0
        );
        for line in &self.lines {
            let colour = COLOURS[line.colour % COLOURS.len()];
            let path: Vec<String> =
                line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let dashes = if line.dashed { r#" stroke-dasharray="5 4""# } else { "" };
            let _ = write!(
                svg,
                "\n<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
                path.join(" ")
            );
            for point in &line.points {
                let _ = write!(
                    svg,
                    "\n<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(point.0),
                    y(point.1)
                );
            }
        }
        svg
    }
}

impl Unit {
    fn label(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value < 1000.0 => format!("{value} ms"),
            Self::Milliseconds => format!("{} s", value / 1000.0),
            Self::Bytes if value < 1e3 => format!("{value} B"),
            Self::Bytes if value < 1e6 => format!("{} kB", value / 1e3),
            Self::Bytes => format!("{} MB", value / 1e6),
        }
    }
}

/// A logarithmic axis, by the decimal logarithms of its ends.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// The axis that has all `values`; from one power of ten to another if it is to be `round`.
    fn over(values: impl Iterator<Item = f64>, round: bool) -> Self {
        let logs = values.map(f64::log10);
        let (from, to) =
            logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), log| (from.min(log), to.max(log)));
        let (from, to) = if from > to { (0.0, 1.0) } else { (from, to) };
        let (from, to) = if round { (from.floor(), to.ceil()) } else { (from, to) };
        Self { from, to: if to > from { to } else { from + 1.0 } }
    }

    /// How far along the axis a value is, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value.log10() - self.from) / (self.to - self.from)
    }

    /// The powers of ten on it.
    fn decades(&self) -> impl Iterator<Item = f64> {
        let to = self.to;
        let logs = std::iter::successors(Some(self.from.ceil()), |log| Some(log + 1.0));
        logs.take_while(move |log| *log <= to).map(|log| 10.0_f64.powf(log))
    }
}

fn float(count: usize) -> f64 {
    // Panels and names: a handful.
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let line = Line { colour: 1, dashed: true, points: vec![(2.0, 0.1), (500.0, 1000.0)] };
        let panel = Panel { title: "time", unit: Unit::Milliseconds, lines: vec![line] };
        let svg = draw(&["make", "take"], "members", &[panel]);
        let (right, bottom) = (LEFT + PANEL_WIDTH, TOP + PANEL_HEIGHT);
        let path = format!("{LEFT:.1},{bottom:.1} {right:.1},{TOP:.1}");
        assert!(svg.contains(&path), "{path} in {svg}");
        for label in ["0.1 ms", "1 ms", "100 ms", "1 s", ">2<", ">500<", "members", "make", "take", "time"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
        assert!(svg.contains("stroke-dasharray"));
    }

    #[test]
    fn one_point_or_none_draws_too() {
        let line = Line { colour: 0, dashed: false, points: vec![(10.0, 1000.0)] };
        let panels = [
            Panel { title: "one", unit: Unit::Bytes, lines: vec![line] },
            Panel { title: "none", unit: Unit::Bytes, lines: vec![] },
        ];
        let svg = draw(&[], "members", &panels);
        assert!(svg.contains("1 kB") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
