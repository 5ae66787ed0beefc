//! JSON over plain HTTP.

use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;

/// A 1,000-token prompt on a slow peer takes minutes.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// Enough for one open connection per slot.
const IDLE_CONNECTIONS: usize = 64;

/// The part of a refusal that is shown.
const MAX_REFUSAL_CHARS: usize = 300;

#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    url: String,
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        let agent = ureq::AgentBuilder::new()
            .timeout_connect(Duration::from_secs(5))
            .timeout_read(READ_TIMEOUT)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .build();
        Self {
            agent,
            url: url.to_owned(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        answer(path, self.agent.get(&format!("{}{path}", self.url)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.agent.post(&format!("{}{path}", self.url));
        answer(path, request.send_json(body))
    }
}

fn answer(path: &str, result: Result<ureq::Response, ureq::Error>) -> anyhow::Result<Value> {
    match result {
        Ok(response) => response
            .into_json()
            .with_context(|| format!("{path} did not answer with JSON")),
        Err(ureq::Error::Status(status, response)) => {
            let text = response.into_string().unwrap_or_default();
            let text: String = text.chars().take(MAX_REFUSAL_CHARS).collect();
            Err(anyhow!("{path} answered {status}: {text}"))
        }
        Err(error) => Err(error).with_context(|| format!("{path} cannot be reached")),
    }
}
