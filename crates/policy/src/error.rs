//! Why a policy set does not load. Whoever wrote the source must act, except
//! for [`PolicyError::Internal`].

/// A policy set that does not load. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// There is not one policy in any source.
    #[error("no policies: nothing would ever be alerted or permitted")]
    Empty,
    /// A source is too large.
    #[error("{source_name}: {bytes} bytes, at most {max_bytes} are read")]
    SourceTooLarge {
        /// Name of the source.
        source_name: String,
        /// Its size.
        bytes: usize,
        /// The cap.
        max_bytes: usize,
    },
    /// There are too many policies in all sources together.
    #[error("{source_name}: more than {max_policies} policies in all sources")]
    TooManyPolicies {
        /// The source that passes the cap.
        source_name: String,
        /// The cap.
        max_policies: usize,
    },
    /// There are too many entities.
    #[error("{source_name}: {entities} entities, at most {max_entities} are kept")]
    TooManyEntities {
        /// Name of the source.
        source_name: String,
        /// How many there are.
        entities: usize,
        /// The cap.
        max_entities: usize,
    },
    /// A policy has more operators than the parser may have to nest.
    #[error("{source_name}:{line}: a policy with more than {max_operators} brackets and operators")]
    TooComplex {
        /// Name of the source.
        source_name: String,
        /// Where the cap is passed.
        line: usize,
        /// The cap.
        max_operators: usize,
    },
    /// A source is not Cedar.
    #[error("{source_name}:{line}: {message}")]
    Syntax {
        /// Name of the source.
        source_name: String,
        /// Where.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A policy has no `@id`.
    #[error("{source_name}:{line}: a policy without @id(\"…\")")]
    MissingId {
        /// Name of the source.
        source_name: String,
        /// Where the policy begins.
        line: usize,
    },
    /// An `@id` is not a name.
    #[error(
        "{source_name}:{line}: @id must be 1 to {max_bytes} of the characters a-z A-Z 0-9 . _ - : /"
    )]
    InvalidId {
        /// Name of the source.
        source_name: String,
        /// Where the policy begins.
        line: usize,
        /// The longest id allowed.
        max_bytes: usize,
    },
    /// Two policies have the same `@id`.
    #[error("{source_name}:{line}: @id \"{id}\" is taken by {first_source}:{first_line}")]
    DuplicateId {
        /// The id.
        id: String,
        /// Source of the second policy.
        source_name: String,
        /// Where the second begins.
        line: usize,
        /// Source of the first policy.
        first_source: String,
        /// Where the first begins.
        first_line: usize,
    },
    /// A policy template. Nothing would ever link it, so it would never act.
    #[error("{source_name}:{line}: templates (?principal, ?resource) are not supported")]
    Template {
        /// Name of the source.
        source_name: String,
        /// Where it begins.
        line: usize,
    },
    /// A policy that does not fit the schema.
    #[error("{source_name}:{line}: {message}")]
    Schema {
        /// Name of the source.
        source_name: String,
        /// Where.
        line: usize,
        /// The policy.
        id: String,
        /// What is wrong.
        message: String,
    },
    /// Entities that are not JSON, or do not fit the schema.
    #[error("{source_name}: {message}")]
    Entities {
        /// Name of the source.
        source_name: String,
        /// What is wrong.
        message: String,
    },
    /// The shipped schema does not parse. This is our bug; please report it.
    #[error("the shipped schema does not parse, please report this: {message}")]
    Internal {
        /// What Cedar says.
        message: String,
    },
}
