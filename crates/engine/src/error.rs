//! What can go wrong, by who must act.

use std::path::PathBuf;

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    // The caller must act.
    /// The process forked after the start; its threads stayed in the parent.
    #[error(
        "started in process {started}, which forked: its threads are not in process {process}, \
         start it there too"
    )]
    ForkedProcess {
        /// The process that has the threads.
        started: u32,
        /// The calling process.
        process: u32,
    },

    /// What was said about a case could not be taken.
    #[error(transparent)]
    Feedback(#[from] crate::FeedbackError),

    /// Something could not be imported.
    #[error(transparent)]
    Import(#[from] crate::ImportError),

    // The operator must act.
    /// The audit log cannot be opened.
    #[error("audit log {path} cannot be opened")]
    AuditOpen {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The audit log could not be written; the engine stopped.
    #[error(
        "audit log {path} cannot be written: {} records are not in it, {lost} more are lost; \
         the engine fails closed",
        unwritten.len()
    )]
    AuditWrite {
        /// Which file.
        path: PathBuf,
        /// The records that are not in the file, one JSON object each, in order.
        unwritten: Vec<String>,
        /// How many more there were than could be kept.
        lost: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The recording cannot be opened or written.
    #[error("recording {path} cannot be written")]
    Recording {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: inwarden_feeds::FeedError,
    },
    /// What was to be learnt cannot be.
    #[error("learn: {0}")]
    LearnUsage(&'static str),
    /// A file to learn from, or one that learning writes, cannot be used.
    #[error("{} cannot be used", path.display())]
    LearnFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was learnt cannot be written or used.
    #[error(transparent)]
    Learned(#[from] inwarden_classifier::LearnedError),
    /// A model file is absent or damaged.
    #[error(transparent)]
    Models(#[from] inwarden_models::ModelError),
    /// The card that the language model is to run on cannot be used.
    #[error(transparent)]
    Gpu(inwarden_inference::GpuError),
    /// The sensor cannot start or failed.
    #[error(transparent)]
    Sensor(#[from] inwarden_sensor::SensorError),
    /// The store cannot be opened.
    #[error(transparent)]
    Memory(#[from] inwarden_memory::MemoryError),
    /// A thread could not be started.
    #[error("thread {name} could not be started")]
    Thread {
        /// Which thread.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },

    // The data is bad.
    /// A model file cannot be loaded.
    #[error(transparent)]
    Inference(#[from] inwarden_inference::InferenceError),
    /// The model cannot take the classifier's prompt.
    #[error(transparent)]
    Judge(#[from] inwarden_classifier::JudgeSetupError),
    /// Rules, precedents or weights cannot be loaded.
    #[error(transparent)]
    Classifier(#[from] inwarden_classifier::ClassifierError),
    /// The policies cannot be loaded.
    #[error(transparent)]
    Policy(#[from] inwarden_policy::PolicyError),
    /// A recording or event cannot be read.
    #[error(transparent)]
    Feed(#[from] inwarden_feeds::FeedError),
    /// The responder cannot start.
    #[error(transparent)]
    Response(#[from] inwarden_response::ResponseError),

    // Ours.
    /// A thread of the engine ended by a panic. Please report it.
    #[error("engine thread {name} ended by a panic; please report this")]
    ThreadPanicked {
        /// Which thread.
        name: &'static str,
    },
}
