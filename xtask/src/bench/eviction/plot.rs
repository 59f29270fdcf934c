//! Hit ratios as a picture: one small diagram a trace, the size of the cache to the right (by its logarithm), percent upwards.

use std::fmt::Write;

use super::{Outcome, POLICIES, SIZES};

/// A diagram and what is around it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 50.0;
const STEP: (f64, f64) = (WIDTH + 60.0, HEIGHT + 60.0);
const COLUMNS: usize = 2;
/// By policy; legible by those who see no red and green.
const COLORS: [&str; 3] = ["#999999", "#0072b2", "#d55e00"];

/// The picture as SVG.
pub fn draw(curves: &[(&str, Vec<Outcome>)]) -> String {
    let rows = curves.len().div_ceil(COLUMNS);
    let (width, height) = (STEP.0 * COLUMNS as f64 + 20.0, STEP.1 * rows as f64 + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, (name, color)) in POLICIES.into_iter().zip(COLORS).enumerate() {
        let x = LEFT + at as f64 * 110.0;
        put(&mut svg, format_args!("<path d=\"M{x} 16h20\" stroke=\"{color}\" stroke-width=\"2\"/>"));
        put(&mut svg, format_args!("<text x=\"{}\" y=\"20\">{name}</text>", x + 26.0));
    }
    put(&mut svg, format_args!("<text x=\"{}\" y=\"20\">requests answered, in percent</text>", LEFT + 340.0));
    for (at, (name, outcomes)) in curves.iter().enumerate() {
        let (x, y) = ((at % COLUMNS) as f64 * STEP.0 + LEFT, (at / COLUMNS) as f64 * STEP.1 + TOP);
        put(&mut svg, format_args!("<g transform=\"translate({x} {y})\">"));
        diagram(&mut svg, name, outcomes);
        put(&mut svg, format_args!("</g>"));
    }
    svg.push_str("</svg>\n");
    svg
}

fn diagram(svg: &mut String, name: &str, outcomes: &[Outcome]) {
    let most = outcomes.iter().flat_map(|outcome| outcome.hits).fold(10.0, f64::max);
    let most = (most / 10.0).ceil() * 10.0;
    let (least_size, most_size) = (SIZES[0].ln(), SIZES[SIZES.len() - 1].ln());
    let x = |size: f64| (size.ln() - least_size) / (most_size - least_size) * WIDTH;
    let y = |percent: f64| HEIGHT - percent / most * HEIGHT;
    put(svg, format_args!("<text x=\"0\" y=\"-8\" font-weight=\"bold\">{name}</text>"));
    put(svg, format_args!("<path d=\"M0 0V{HEIGHT}H{WIDTH}\" fill=\"none\" stroke=\"black\"/>"));
    for tenth in 0..=(most / 20.0) as usize {
        let percent = tenth as f64 * 20.0;
        put(svg, format_args!("<path d=\"M0 {0:.1}H{WIDTH}\" stroke=\"#dddddd\"/>", y(percent)));
        put(svg, format_args!("<text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{percent}</text>", y(percent) + 4.0));
    }
    for size in SIZES {
        let (x, y) = (x(size), HEIGHT + 15.0);
        put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{:.1} %</text>", size * 100.0));
    }
    for (policy, color) in COLORS.into_iter().enumerate() {
        let point = |outcome: &Outcome| format!("{:.1},{:.1}", x(outcome.size), y(outcome.hits[policy]));
        let points: Vec<String> = outcomes.iter().map(point).collect();
        let points = points.join(" ");
        put(svg, format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>"));
    }
}

/// A line.
fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(svg, "{line}");
}
