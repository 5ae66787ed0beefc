//! A scripted judge, a hashing embedder, and cases.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use inwarden_classifier::{
    Classifier, ClassifierConfig, Judge, JudgeAnswer, JudgeError, Parts, RuleSet, exec_case,
};
use inwarden_memory::{Embed, EmbedError, Memory};
use inwarden_types::Case;

/// A case of one program start.
pub(crate) fn case(args: &[&str]) -> Case {
    exec_case(
        "e",
        args.iter().map(ToString::to_string).collect(),
        &["bash".to_owned()],
    )
}

/// A classifier with the shipped rules, a judge, and no memory.
pub(crate) fn classifier(judge: ScriptedJudge) -> Classifier {
    judged(judge, None)
}

/// A classifier with the shipped rules.
pub(crate) fn judged(judge: ScriptedJudge, memory: Option<Arc<Memory>>) -> Classifier {
    let parts = Parts {
        judge: Some(Arc::new(judge)),
        memory,
        rules: Some(Arc::new(
            RuleSet::shipped().expect("the shipped rules compile"),
        )),
    };
    let config = ClassifierConfig::shipped().expect("the shipped weights parse");
    Classifier::new(config, parts).expect("the shipped settings are in range")
}

type Script = dyn Fn(&str) -> Option<f64> + Send + Sync;

/// Answers as it was told.
pub(crate) struct ScriptedJudge {
    script: Box<Script>,
}

impl ScriptedJudge {
    pub(crate) fn always(log_odds: f64) -> Self {
        Self {
            script: Box::new(move |_| Some(log_odds)),
        }
    }

    pub(crate) fn by_length() -> Self {
        Self {
            script: Box::new(|text| Some((text.len() % 7) as f64 - 3.0)),
        }
    }

    pub(crate) fn counting(asked: Arc<AtomicUsize>) -> Self {
        Self {
            script: Box::new(move |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                Some(0.0)
            }),
        }
    }

    pub(crate) fn failing() -> Self {
        Self {
            script: Box::new(|_| None),
        }
    }
}

impl Judge for ScriptedJudge {
    fn identity(&self) -> String {
        "scripted".to_owned()
    }

    fn judge(&self, case_text: &str) -> Result<JudgeAnswer, JudgeError> {
        match (self.script)(case_text) {
            Some(log_odds) => Ok(JudgeAnswer {
                log_odds,
                head: Some(log_odds),
            }),
            None => Err(JudgeError::Failed {
                judge: self.identity(),
                reason: "as told".to_owned(),
            }),
        }
    }
}

/// Embeds a text as the histogram of its words' hashes.
pub(crate) struct HashEmbed;

impl Embed for HashEmbed {
    fn dimension(&self) -> usize {
        64
    }

    fn identity(&self) -> String {
        "hash".to_owned()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let embed_one = |text: &&str| {
            let mut vector = vec![0.0; 64];
            vector[0] = 0.1;
            for word in text.split_whitespace() {
                let hash = word
                    .bytes()
                    .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
                vector[(hash % 64) as usize] += 1.0;
            }
            vector
        };
        Ok(texts.iter().map(embed_one).collect())
    }
}
