//! The figures as a plot: one panel of bars for each measurement, and the time
//! to a verdict by event length.

use super::{Report, table::title};
use crate::llm::{
    compare::{Comparison, MEASURES},
    grid::Cell,
};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 16.0;
const GAP: f64 = 6.0;
const PANEL_TITLE: f64 = 28.0;
const CHART_HEIGHT: f64 = 240.0;
const OURS: &str = "#1f6f8b";
const THEIRS: &str = "#b9c4c9";
const LINES: [&str; 6] = [
    "#1f6f8b", "#c06c2b", "#5b8c3e", "#8a4f9e", "#b03a48", "#6b6b6b",
];

impl Report {
    pub(crate) fn svg(&self) -> String {
        let mut plot = Plot::default();
        if let Some(comparison) = &self.comparison {
            plot.bars(comparison);
        }
        plot.verdicts(&self.grid);
        plot.finish(self.about["model"].as_str().unwrap_or_default())
    }
}

/// A plot that grows downwards.
#[derive(Default)]
struct Plot {
    body: String,
    y: f64,
}

impl Plot {
    fn bars(&mut self, comparison: &Comparison) {
        for measure in MEASURES {
            let medians = comparison.subjects.iter().map(|subject| {
                let sample = subject.sample(measure);
                (subject.name.as_str(), sample.median(), sample.is_empty())
            });
            let bars: Vec<_> = medians.filter(|&(_, _, missing)| !missing).collect();
            if bars.is_empty() {
                continue;
            }
            self.heading(&title(measure));
            let largest = bars
                .iter()
                .map(|bar| bar.1)
                .fold(f64::MIN_POSITIVE, f64::max);
            for (name, value, _) in bars {
                let is_ours = name == comparison.subjects[0].name;
                self.bar(name, value, largest, if is_ours { OURS } else { THEIRS });
            }
        }
    }

    fn bar(&mut self, name: &str, value: f64, largest: f64, colour: &str) {
        let width = (WIDTH - LEFT - RIGHT) * value / largest;
        self.text(LEFT - 8.0, self.y + 12.0, "end", name);
        self.add(&format!(
            r#"<rect x="{LEFT}" y="{:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#,
            self.y
        ));
        self.text(
            LEFT + width + 6.0,
            self.y + 12.0,
            "start",
            &format!("{value:.1}"),
        );
        self.y += BAR + GAP;
    }

    /// Lines over event length: one for each prefix and thread count, of single
    /// events; the mark above each point is its 95th percentile.
    fn verdicts(&mut self, grid: &[Cell]) {
        let single: Vec<&Cell> = grid.iter().filter(|cell| cell.batch == 1).collect();
        let longest = single.iter().map(|cell| cell.event_tokens).max();
        let slowest = single.iter().map(|cell| cell.verdict.percentile(95));
        let slowest = slowest.fold(f64::MIN_POSITIVE, f64::max);
        let Some(longest) = longest else { return };
        self.heading("verdict ms by event tokens: median, with the 95th percentile above");
        let mut series: Vec<(usize, usize)> = single
            .iter()
            .map(|cell| (cell.threads, cell.prefix_tokens))
            .collect();
        series.dedup();
        let (top, bottom) = (self.y, self.y + CHART_HEIGHT);
        let x = |tokens: usize| LEFT + (WIDTH - LEFT - RIGHT) * tokens as f64 / longest as f64;
        let y = |ms: f64| bottom - (bottom - top) * ms / slowest;
        self.add(&format!(
            r##"<path d="M{LEFT} {top}V{bottom}H{}" fill="none" stroke="#444"/>"##,
            WIDTH - RIGHT
        ));
        self.text(LEFT - 8.0, top + 10.0, "end", &format!("{slowest:.0} ms"));
        for (idx, &(threads, prefix_tokens)) in series.iter().enumerate() {
            let colour = LINES[idx % LINES.len()];
            let cells = single
                .iter()
                .filter(|cell| (cell.threads, cell.prefix_tokens) == (threads, prefix_tokens));
            let mut line = String::new();
            for cell in cells {
                let (x, p50) = (x(cell.event_tokens), y(cell.verdict.median()));
                let p95 = y(cell.verdict.percentile(95));
                line += &format!("{x:.1},{p50:.1} ");
                self.add(&format!(
                    r#"<circle cx="{x:.1}" cy="{p50:.1}" r="3" fill="{colour}"/><path d="M{x:.1} {p50:.1}V{p95:.1}m-4 0h8" fill="none" stroke="{colour}"/>"#
                ));
                if idx == 0 {
                    self.text(x, bottom + 16.0, "middle", &cell.event_tokens.to_string());
                }
            }
            self.add(&format!(
                r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#
            ));
            let label_y = top + 14.0 + 18.0 * idx as f64;
            self.add(&format!(
                r#"<rect x="16" y="{:.1}" width="12" height="4" fill="{colour}"/>"#,
                label_y + 20.0
            ));
            let label = format!("prefix {prefix_tokens}, {threads} threads");
            self.text(34.0, label_y + 26.0, "start", &label);
        }
        self.y = bottom + 30.0;
    }

    fn heading(&mut self, title: &str) {
        self.y += PANEL_TITLE;
        self.add(&format!(
            r#"<text x="16" y="{:.1}" font-weight="bold">{}</text>"#,
            self.y - 8.0,
            escaped(title)
        ));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.add(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escaped(text)
        ));
    }

    fn add(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    fn finish(self, title: &str) -> String {
        let height = self.y + 16.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            escaped(title),
            self.body
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
