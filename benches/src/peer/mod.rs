//! Other engines, asked the same questions in the same run.

mod candle;
mod http;
mod llama_cpp;
mod openai;

use std::{path::PathBuf, str::FromStr};

use anyhow::Context;

use self::{candle::CandlePeer, http::Http, llama_cpp::LlamaCpp, openai::OpenAi};
use crate::{
    subject::Subject,
    workload::{Piece, Question},
};

/// Where a peer listens, and what it is called in the figures.
#[derive(Clone, Debug)]
pub(crate) struct PeerAddress {
    name: String,
    url: String,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("//") => (name, url),
            _ => ("peer", text),
        };
        if name.is_empty() || !url.starts_with("http://") {
            return Err("expected URL or NAME=URL, with a URL that starts with http://".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
        })
    }
}

impl PeerAddress {
    /// Finds out which kind of server answers there.
    pub(crate) fn connect(
        &self,
        question: &Question,
        probe: &Piece,
    ) -> anyhow::Result<Box<dyn Subject>> {
        let http = Http::new(&self.url);
        let context = || format!("peer {} at {}", self.name, self.url);
        if let Ok(properties) = http.get("/props")
            && let Some(n_slots) = properties["total_slots"].as_u64()
        {
            let n_slots = usize::try_from(n_slots)?;
            let peer = LlamaCpp::new(&self.name, http, n_slots, question.clone());
            peer.check_tokens(probe).with_context(context)?;
            return Ok(Box::new(peer));
        }
        let peer = OpenAi::new(&self.name, http, question.clone()).with_context(context)?;
        Ok(Box::new(peer))
    }
}

/// The peer that runs in this process, from the same files.
pub(crate) fn in_process(
    files: &[PathBuf],
    question: &Question,
) -> anyhow::Result<Box<dyn Subject>> {
    Ok(Box::new(CandlePeer::load(files, question.clone())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_carry_a_name() {
        let named: PeerAddress = "llama-q8=http://127.0.0.1:8081/".parse().unwrap();
        assert_eq!(named.name, "llama-q8");
        assert_eq!(named.url, "http://127.0.0.1:8081");
        let unnamed: PeerAddress = "http://127.0.0.1:1/a=b".parse().unwrap();
        assert_eq!(
            (&*unnamed.name, &*unnamed.url),
            ("peer", "http://127.0.0.1:1/a=b")
        );
        assert!("=http://127.0.0.1".parse::<PeerAddress>().is_err());
        assert!("ftp://127.0.0.1".parse::<PeerAddress>().is_err());
    }
}
