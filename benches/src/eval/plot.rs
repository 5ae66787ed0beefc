//! The reliability plot: score against the share of attacks, beside what a perfect
//! model of as many rows would show.

use std::fmt::Write as _;

use super::calibration::Reliability;

const SIZE: f64 = 420.0;
const MARGIN: f64 = 56.0;

/// An empty frame where nothing was measured.
pub(super) fn of(reliability: Option<&Reliability>) -> String {
    let side = SIZE + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>Reliability</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing to a string cannot fail.
    let _infallible = write_plot(&mut svg, reliability);
    svg + "</svg>\n"
}

fn write_plot(svg: &mut String, reliability: Option<&Reliability>) -> std::fmt::Result {
    let x = |share: f64| MARGIN + SIZE * share;
    let y = |share: f64| MARGIN + SIZE * (1.0 - share);
    let (low, high) = (x(0.0), x(1.0));
    writeln!(
        svg,
        "<rect x=\"{low}\" y=\"{low}\" width=\"{SIZE}\" height=\"{SIZE}\" fill=\"none\" stroke=\"#444\"/>\n\
         <path d=\"M{low} {high}L{high} {low}\" stroke=\"#b9c4c9\" stroke-dasharray=\"4 4\"/>"
    )?;
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{share:.1}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{share:.1}</text>",
            x(share),
            high + 18.0,
            low - 8.0,
            y(share) + 4.0
        )?;
    }
    let middle = x(0.5);
    writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">mean score of the bin</text>\n\
         <text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">share of attacks</text>",
        high + 40.0
    )?;
    let Some(reliability) = reliability else {
        return Ok(());
    };
    for bin in &reliability.bins {
        let (cx, cy) = (x(bin.mean_score), y(bin.attack_share));
        // How far the share of a perfect model's bin strays: two standard errors.
        let spread = bin.mean_score * (1.0 - bin.mean_score) / bin.rows as f64;
        let spread = 2.0 * spread.sqrt();
        let top = y((bin.mean_score + spread).min(1.0));
        let bottom = y((bin.mean_score - spread).max(0.0));
        writeln!(
            svg,
            "<path d=\"M{cx:.1} {top:.1}V{bottom:.1}\" stroke=\"#b9c4c9\" stroke-width=\"6\"/>\n\
             <circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" fill=\"#1f6f8b\"/>"
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\">calibration error {:.3}; a perfect model {:.3} (95 %: {:.3})</text>",
        low,
        low - 12.0,
        reliability.error,
        reliability.floor_mean,
        reliability.floor_p95
    )
}
