//! llama.cpp's `llama-server`, over its own endpoints.
//!
//! Prompts go over as token ids, so both sides compute the same positions. The
//! server says how many of them it took from its cache; an answer that read
//! more or less than the event ends the run, since its time would not compare.
//!
//! Source: `tools/server/README.md` of llama.cpp.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use inwarden_inference::TokenId;
use serde_json::{Value, json};

use super::http::Http;
use crate::{
    subject::{Subject, Way},
    workload::{BEFORE_LABEL, LABELS, Piece, Question},
};

/// Tokens at the start of an event that may happen to be those of the event
/// the slot saw before.
const CHANCE_TOKENS: usize = 4;

/// The label's probability is looked for among so many.
const N_PROBABILITIES: usize = 20;

/// More than the longest answer has.
const MAX_ANSWER_TOKENS: usize = 32;

/// The name under which a slot's cache is saved for the other slots.
const SAVED_SLOT: &str = "inwarden-bench-prefix.bin";

pub(crate) struct LlamaCpp {
    name: String,
    http: Http,
    n_slots: usize,
    question: Question,
    grammar: String,
    prefix: Piece,
    /// Slots that hold the prefix: the first one alone until a batch comes.
    n_filled: usize,
}

impl LlamaCpp {
    pub(crate) fn new(name: &str, http: Http, n_slots: usize, question: Question) -> Self {
        Self {
            name: name.to_owned(),
            http,
            n_slots,
            question,
            grammar: grammar(),
            prefix: Piece::default(),
            n_filled: 0,
        }
    }

    /// Whether the server's vocabulary is the model's.
    pub(crate) fn check_tokens(&self, probe: &Piece) -> anyhow::Result<()> {
        let body = json!({ "content": probe.text, "add_special": false, "parse_special": false });
        let answer = self.http.post("/tokenize", &body)?;
        let tokens = answer["tokens"].as_array().context("no tokens")?;
        let same = tokens.len() == probe.tokens.len()
            && tokens
                .iter()
                .zip(&probe.tokens)
                .all(|(theirs, ours)| theirs.as_u64() == Some(u64::from(ours.0)));
        ensure!(
            same,
            "the server splits text into other tokens: another model?"
        );
        Ok(())
    }

    /// Completes prefix and `event` in `slot`; `options` are added to the request.
    fn complete(&self, slot: usize, event: &Piece, options: Value) -> anyhow::Result<Value> {
        let prompt: Vec<u32> = ids(&self.prefix.tokens, &event.tokens);
        let mut body = json!({
            "prompt": prompt,
            "id_slot": slot,
            "cache_prompt": true,
            "temperature": 0.0,
        });
        merge(&mut body, options);
        let answer = self.http.post("/completion", &body)?;
        self.check_cache(&answer["timings"], event.tokens.len())?;
        Ok(answer)
    }

    fn check_cache(&self, timings: &Value, n_event: usize) -> anyhow::Result<()> {
        let count = |key: &str| timings[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let (Some(cached), Some(read)) = (count("cache_n"), count("prompt_n")) else {
            bail!("the server does not say what it took from its cache");
        };
        let expected = self.prefix.tokens.len();
        ensure!(
            (expected..=expected + CHANCE_TOKENS).contains(&cached)
                && cached + read == expected + n_event,
            "the slot took {cached} tokens from its cache and read {read}; \
             expected {expected} and {n_event}"
        );
        Ok(())
    }

    /// Runs the prefix in `slot`, whatever the slot held before.
    fn fill(&self, slot: usize) -> anyhow::Result<()> {
        let body = json!({
            "prompt": ids(&self.prefix.tokens, &[]),
            "id_slot": slot,
            "cache_prompt": true,
            "n_predict": 1,
        });
        self.http.post("/completion", &body)?;
        Ok(())
    }

    /// Puts the prefix into the first `n_slots`: by a saved copy of the first
    /// slot where the server has a place for it, by running it elsewhere.
    fn fill_slots(&mut self, n_slots: usize) -> anyhow::Result<()> {
        if self.n_filled >= n_slots {
            return Ok(());
        }
        let file = json!({ "filename": SAVED_SLOT });
        self.fill(0)?;
        let saved = self.http.post("/slots/0?action=save", &file).is_ok();
        for slot in self.n_filled.max(1)..n_slots {
            let path = format!("/slots/{slot}?action=restore");
            if !(saved && self.http.post(&path, &file).is_ok()) {
                self.fill(slot)?;
            }
        }
        self.n_filled = n_slots;
        Ok(())
    }

    fn one_token(&self, slot: usize, event: &Piece) -> anyhow::Result<()> {
        let event = event.followed_by(&self.question.before_label);
        let options = json!({ "n_predict": 1, "n_probs": N_PROBABILITIES });
        let answer = self.complete(slot, &event, options)?;
        let probabilities = &answer["completion_probabilities"][0]["top_logprobs"];
        ensure!(
            probabilities.as_array().is_some_and(|top| !top.is_empty()),
            "the server gave no probabilities"
        );
        Ok(())
    }

    fn constrained(&self, event: &Piece) -> anyhow::Result<()> {
        let event = event.followed_by(&self.question.before_answer);
        let options = json!({ "n_predict": MAX_ANSWER_TOKENS, "grammar": self.grammar });
        let answer = self.complete(0, &event, options)?;
        let text = answer["content"].as_str().unwrap_or_default();
        let is_answer = |label: &str| text == format!("{BEFORE_LABEL}{label}\"}}");
        ensure!(LABELS.into_iter().any(is_answer), "not an answer: {text:?}");
        Ok(())
    }
}

impl Subject for LlamaCpp {
    fn name(&self) -> &str {
        &self.name
    }

    fn cache_prefix(&mut self, prefix: &Piece) -> anyhow::Result<()> {
        self.prefix = prefix.clone();
        self.n_filled = 1;
        self.fill(0)
    }

    fn prefill(&mut self, event: &Piece) -> anyhow::Result<Duration> {
        let answer = self.complete(0, event, json!({ "n_predict": 1 }))?;
        let timings = &answer["timings"];
        let read = timings["prompt_n"].as_f64().context("no prompt_n")?;
        let time = timings["prompt_ms"].as_f64().context("no prompt_ms")?;
        // A first token that the slot held by chance was not read.
        let n_event = event.tokens.len() as f64;
        Ok(Duration::from_secs_f64(time / 1e3 * n_event / read))
    }

    fn decode(&mut self, event: &Piece, n_tokens: usize) -> anyhow::Result<f64> {
        let options = json!({ "n_predict": n_tokens, "ignore_eos": true });
        let answer = self.complete(0, event, options)?;
        let timings = &answer["timings"];
        let n_generated = timings["predicted_n"].as_f64().context("no predicted_n")?;
        let time = timings["predicted_ms"]
            .as_f64()
            .context("no predicted_ms")?;
        // The first token comes out of the pass that read the event.
        Ok((n_generated - 1.0) * 1e3 / time)
    }

    fn verdict(&mut self, way: Way, event: &Piece) -> anyhow::Result<Option<Duration>> {
        let started = Instant::now();
        match way {
            Way::Constrained => self.constrained(event)?,
            Way::OneToken => self.one_token(0, event)?,
        }
        Ok(Some(started.elapsed()))
    }

    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>> {
        let n_slots = self.n_slots.min(events.len());
        self.fill_slots(n_slots)?;
        let started = Instant::now();
        let this = &*self;
        std::thread::scope(|scope| {
            let asked: Vec<_> = events
                .iter()
                .enumerate()
                .map(|(idx, event)| scope.spawn(move || this.one_token(idx % n_slots, event)))
                .collect();
            asked
                .into_iter()
                .try_for_each(|answer| match answer.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        Ok(Some(started.elapsed()))
    }
}

/// One JSON object with one of the labels.
fn grammar() -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\\\""));
    let labels = LABELS.map(quoted).join(" | ");
    format!(
        "root ::= {} ({labels}) {}",
        quoted(BEFORE_LABEL),
        quoted("\"}")
    )
}

fn ids(prefix: &[TokenId], event: &[TokenId]) -> Vec<u32> {
    prefix.iter().chain(event).map(|token| token.0).collect()
}

fn merge(body: &mut Value, options: Value) {
    if let (Value::Object(body), Value::Object(options)) = (body, options) {
        body.extend(options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_quotes_what_the_answer_quotes() {
        assert_eq!(
            grammar(),
            r#"root ::= "{\"verdict\":\"" ("benign" | "suspicious" | "malicious" | "unknown") "\"}""#
        );
    }

    #[test]
    fn an_answer_from_another_cache_is_refused() {
        let question = Question {
            before_answer: Piece::default(),
            before_label: Piece::default(),
            labels: Vec::new(),
        };
        let mut peer = LlamaCpp::new("peer", Http::new("http://127.0.0.1:1"), 1, question);
        peer.prefix.tokens = vec![TokenId(1); 10];
        let check = |cached: u32, read: u32| {
            peer.check_cache(&json!({ "cache_n": cached, "prompt_n": read }), 6)
        };
        assert!(check(10, 6).is_ok());
        assert!(check(11, 5).is_ok());
        assert!(check(0, 16).is_err());
        assert!(check(15, 1).is_err());
        assert!(check(10, 7).is_err());
        assert!(peer.check_cache(&json!({}), 6).is_err());
    }
}
