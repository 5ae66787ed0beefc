//! Any server with OpenAI's `/v1/completions`.
//!
//! Such a server does not say what it took from its cache and how long each
//! part took, so these are times on the wall. Prompts go over as text: not
//! every server takes token ids.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::http::Http;
use crate::{
    subject::{Subject, Way},
    workload::{Piece, Question},
};

/// Probabilities asked for: the most that OpenAI's own server gives.
const N_PROBABILITIES: usize = 5;

const PATH: &str = "/v1/completions";

pub(crate) struct OpenAi {
    name: String,
    http: Http,
    model: String,
    question: Question,
    prefix: Piece,
}

impl OpenAi {
    pub(crate) fn new(name: &str, http: Http, question: Question) -> anyhow::Result<Self> {
        let models = http.get("/v1/models")?;
        let model = models["data"][0]["id"]
            .as_str()
            .context("/v1/models names no model")?;
        Ok(Self {
            name: name.to_owned(),
            model: model.to_owned(),
            http,
            question,
            prefix: Piece::default(),
        })
    }

    fn complete(&self, event: &Piece, max_tokens: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let body = self.request(event, max_tokens);
        let answer = self.http.post(PATH, &body)?;
        ensure!(answer["choices"][0].is_object(), "the answer has no choice");
        Ok(started.elapsed())
    }

    fn request(&self, event: &Piece, max_tokens: usize) -> Value {
        json!({
            "model": self.model,
            "prompt": format!("{}{}", self.prefix.text, event.text),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": true,
        })
    }

    fn one_token(&self, event: &Piece) -> anyhow::Result<Duration> {
        let event = event.followed_by(&self.question.before_label);
        let mut body = self.request(&event, 1);
        body["logprobs"] = json!(N_PROBABILITIES);
        let started = Instant::now();
        let answer = self.http.post(PATH, &body)?;
        ensure!(
            !answer["choices"][0]["logprobs"].is_null(),
            "the server gave no probabilities"
        );
        Ok(started.elapsed())
    }
}

impl Subject for OpenAi {
    fn name(&self) -> &str {
        &self.name
    }

    fn cache_prefix(&mut self, prefix: &Piece) -> anyhow::Result<()> {
        self.prefix = prefix.clone();
        self.complete(&Piece::default(), 1)?;
        Ok(())
    }

    fn prefill(&mut self, event: &Piece) -> anyhow::Result<Duration> {
        self.complete(event, 1)
    }

    fn decode(&mut self, event: &Piece, n_tokens: usize) -> anyhow::Result<f64> {
        let one = self.complete(event, 1)?;
        // The event is cached now; its last position at least is read again.
        let all = self.complete(event, n_tokens)?;
        let first = self.complete(event, 1)?.min(one);
        let steps = n_tokens.saturating_sub(1) as f64;
        Ok(steps / all.saturating_sub(first).as_secs_f64())
    }

    /// How an answer is held to a grammar differs from server to server.
    fn verdict(&mut self, way: Way, event: &Piece) -> anyhow::Result<Option<Duration>> {
        match way {
            Way::Constrained => Ok(None),
            Way::OneToken => self.one_token(event).map(Some),
        }
    }

    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>> {
        let started = Instant::now();
        let this = &*self;
        std::thread::scope(|scope| {
            let asked: Vec<_> = events
                .iter()
                .map(|event| scope.spawn(move || this.one_token(event)))
                .collect();
            asked
                .into_iter()
                .try_for_each(|answer| match answer.join() {
                    Ok(result) => result.map(drop),
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        Ok(Some(started.elapsed()))
    }
}
