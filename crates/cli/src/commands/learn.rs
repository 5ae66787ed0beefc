//! `inwarden learn`: labelled rows in, what the judge needs out; or a recording of
//! ordinary work as rows.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::Context;
use inwarden::{
    CorpusChoice, EngineError, LearnConfig, LearnOutcome, LearnStep, Question, WorkRecorder,
};

use crate::{
    Ended, Misuse,
    arguments::{LearnOptions, QuestionName},
    config::Config,
    console, interrupt,
};

/// How often a line says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) fn run(config: &Config, options: &LearnOptions) -> anyhow::Result<Ended> {
    let Some(question) = options.question else {
        return record(options);
    };
    let learned_dir = config.learned_dir.clone();
    let out_dir = options.out.clone().or(learned_dir);
    let learn = LearnConfig {
        question: match question {
            QuestionName::Exec => Question::Exec,
            QuestionName::ToolOutput => Question::ToolOutput,
            QuestionName::UserText => Question::UserText,
            QuestionName::ToolCall => Question::ToolCall,
        },
        rows: options.rows.clone(),
        corpus: match options.own_rows_only {
            true => CorpusChoice::OwnRowsOnly,
            false => CorpusChoice::Shipped,
        },
        recordings: options.hard_negatives.clone(),
        max_mined: options.max_hard_negatives as usize,
        work_dir: match &options.work {
            Some(dir) => dir.clone(),
            None => config.state_dir.join("learning"),
        },
        out_dir: out_dir.unwrap_or_else(|| config.state_dir.join("learned")),
    };
    let mut progress = Progress::default();
    let outcome = inwarden::learn(config.analyst(), &learn, &mut |step| {
        progress.show(step);
        go_on()
    });
    let outcome = outcome.map_err(|error| match error {
        EngineError::LearnUsage(_) => anyhow::Error::from(error).context(Misuse),
        error => error.into(),
    })?;
    let LearnOutcome::Learned { card, set } = outcome else {
        console::note("inwarden: broken off; the same command goes on where it ended");
        return Ok(Ended::Interrupted);
    };
    console::line(card.to_string().trim_end())?;
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", card.to_json());
        std::fs::write(path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    console::line(&format!("written: {}", set.display()))?;
    if config.learned_dir.as_deref() != set.parent() {
        console::note(
            "inwarden: it is used where the configuration has its directory as learned_dir",
        );
    }
    Ok(Ended::Done)
}

fn go_on() -> ControlFlow<()> {
    match interrupt::is_asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Lines about how far it is, not too many.
#[derive(Default)]
struct Progress {
    last: Option<Instant>,
}

impl Progress {
    fn show(&mut self, step: LearnStep) {
        let is_soon = self
            .last
            .is_some_and(|last| last.elapsed() < REPORT_INTERVAL);
        let line = match step {
            LearnStep::Mining(mined) if mined.taken > 0 || !is_soon => format!(
                "recordings: {} executions read, {} distinct, {} judged by the model, {} taken as \
                 benign; left out: {} that rules or precedents call malicious, {} cut, {} \
                 unreadable, {} beyond the limit",
                mined.read,
                mined.distinct,
                mined.judged,
                mined.taken,
                mined.settled_malicious,
                mined.cut,
                mined.unreadable,
                mined.beyond
            ),
            LearnStep::Rows {
                own,
                mined,
                shipped,
                distinct,
            } => format!(
                "rows: {own} of yours, {shipped} shipped, {mined} from recordings; {distinct} differ"
            ),
            LearnStep::Extracting(at) if at.done == at.total || !is_soon => {
                let left = at.remaining.filter(|_| at.done < at.total);
                let left = left.map(|left| format!(", about {} left", minutes(left)));
                let left = left.unwrap_or_default();
                format!("states: {} of {}{left}", at.done, at.total)
            }
            LearnStep::Fitting => "fitting head, words and weights".to_owned(),
            _ => return,
        };
        self.last = Some(Instant::now());
        console::note(&line);
    }
}

fn minutes(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn record(options: &LearnOptions) -> anyhow::Result<Ended> {
    let [path] = options.rows.as_slice() else {
        return Err(anyhow::anyhow!("--record writes one file").context(Misuse));
    };
    let recorder = WorkRecorder::create(path)?;
    let until = options.seconds.map(Duration::from_secs);
    let start = Instant::now();
    console::note("inwarden: recording; Ctrl-C ends it");
    let counts = recorder.run(&mut |_| match until {
        Some(until) if start.elapsed() >= until => ControlFlow::Break(()),
        _ => go_on(),
    })?;
    console::line(&format!(
        "{} rows of {} executions in {}; left out: {} cut, {} beyond the limit, {} lost by the \
         kernel. Look through them: what is in there is learnt as ordinary",
        counts.written,
        counts.seen,
        path.display(),
        counts.cut,
        counts.beyond,
        counts.lost
    ))?;
    Ok(Ended::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_seconds_then_in_minutes() {
        assert_eq!(minutes(Duration::from_secs(42)), "42 s");
        assert_eq!(minutes(Duration::from_secs(601)), "11 min");
    }
}
