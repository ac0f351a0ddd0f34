//! Plots throughput and p99 by number of clients as SVG.

use std::fmt::Write as _;

use crate::figures::Short;

/// The measurements for a number of clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// The number of clients.
    pub(crate) clients: usize,
    /// Sentences per second.
    pub(crate) sentences_per_second: f64,
    /// The 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: f64,
}

/// A curve of the plot.
#[derive(Debug)]
pub(crate) struct Curve {
    /// Its name in the legend.
    pub(crate) name: String,
    /// The points by increasing number of clients.
    pub(crate) points: Vec<Point>,
}

const COLOURS: [&str; 6] = ["#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7"];
/// Size of a panel's drawing area.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 240.0;
/// Room for the labels.
const LEFT: f64 = 64.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 44.0;

/// The scale of a panel's vertical axis.
#[derive(Clone, Copy)]
enum Scale {
    /// From zero.
    Linear,
    /// Powers of ten.
    Logarithmic,
}

/// Draws both panels and the legend.
pub(crate) fn svg(curves: &[Curve]) -> String {
    let (width, height) = (2.0 * (LEFT + WIDTH) + 16.0, TOP + HEIGHT + BOTTOM + 18.0 * curves.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    panel(&mut svg, 0.0, "sentences/s", Scale::Linear, curves, |point| point.sentences_per_second);
    panel(&mut svg, LEFT + WIDTH, "p99, ms", Scale::Logarithmic, curves, |point| point.p99_ms);
    for (number, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let y = TOP + HEIGHT + BOTTOM + 18.0 * number as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"18\" height=\"4\" fill=\"{colour}\"/><text x=\"{}\" \
             y=\"{y}\">{}</text>",
            y - 6.0,
            LEFT + 26.0,
            curve.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(
    svg: &mut String,
    offset: f64,
    title: &str,
    scale: Scale,
    curves: &[Curve],
    figure: fn(&Point) -> f64,
) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let doublings = points().map(|point| (point.clients as f64).log2()).fold(1.0, f64::max);
    let x = |clients: usize| offset + LEFT + (clients as f64).log2() / doublings * (WIDTH - 24.0);
    let figures = || points().map(figure).filter(|figure| figure.is_finite());
    let ticks = ticks(scale, figures().fold(f64::INFINITY, f64::min), figures().fold(0.0, f64::max));
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let part = |figure: f64| match scale {
        Scale::Linear => figure / high,
        Scale::Logarithmic => (figure / low).log10() / (high / low).log10(),
    };
    let y = |figure: f64| TOP + HEIGHT * (1.0 - part(figure));

    let left = offset + LEFT;
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>", TOP - 14.0);
    for tick in ticks {
        let y = y(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{tick}</text>",
            left + WIDTH - 24.0,
            left - 8.0,
            y + 4.0
        );
    }
    for point in curves.first().map_or(&[][..], |curve| &curve.points) {
        let (x, y) = (x(point.clients), TOP + HEIGHT + 18.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", point.clients);
    }
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let mut line = String::new();
        for point in curve.points.iter().filter(|point| figure(point).is_finite()) {
            let (x, y) = (x(point.clients), y(figure(point)));
            let _ = write!(line, "{}{x:.1} {y:.1}", if line.is_empty() { "M" } else { "L" });
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{}, {} clients: {}</title>\
                 </circle>",
                curve.name,
                point.clients,
                Short(figure(point))
            );
        }
        let _ = writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">clients</text>",
        left + WIDTH / 2.0,
        TOP + HEIGHT + 34.0
    );
}

/// Round numbers from at most the lowest value to at least the highest.
fn ticks(scale: Scale, lowest: f64, highest: f64) -> Vec<f64> {
    match scale {
        Scale::Linear => {
            let power = 10_f64.powf(highest.max(1.0).log10().floor());
            let step = [0.2, 0.5, 1.0, 2.0].map(|part| part * power);
            let step = step.into_iter().find(|step| highest / step <= 6.0).unwrap_or(power);
            (0..=(highest / step).ceil() as usize).map(|number| number as f64 * step).collect()
        }
        Scale::Logarithmic => {
            let (from, to) = (lowest.log10().floor() as i32, highest.max(1.0).log10().ceil() as i32);
            (from..=to.max(from + 1)).map(|exponent| 10_f64.powi(exponent)).collect()
        }
    }
}
