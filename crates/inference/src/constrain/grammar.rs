//! Constrained output of a grammar: a Lark grammar or a JSON schema.
//!
//! The parser is `llguidance`'s. Its own front doors install a panic hook for
//! the whole process; this file goes in by its parser instead, which does not,
//! and turns a panic there into an error. Its limits are set below its defaults.
//!
//! Source: `TokenParser` in `llguidance` 1.9.1, whose steps this follows.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use llguidance::{
    Logger,
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    earley::{BiasComputer, CGrammar, Parser, ParserRecognizer, perf::ParserPerfCounters},
    toktrie::{INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv},
};

use super::{Constraint, Machine, Step};
use crate::{
    error::InferenceError,
    tokenizer::{TokenId, Tokenizer},
};

/// Far above what a hand-written grammar needs.
const MAX_SOURCE_BYTES: usize = 16 * 1024;
const MAX_NESTING: usize = 64;
/// The library recurses from rule to rule. Without optimisation, 32 KiB of the
/// shortest rules, each in terms of the next, need between 32 and 128 MiB.
const COMPILER_STACK_BYTES: usize = 128 << 20;
/// The library's messages quote the grammar.
const MAX_MESSAGE_CHARS: usize = 300;

/// Compiles grammars for one tokenizer; cheap to clone.
#[derive(Clone)]
pub struct GrammarCompiler {
    tokenizer: Tokenizer,
    environment: Arc<Environment>,
}

/// A grammar over the tokens of one model; cheap to clone.
#[derive(Clone)]
pub struct Grammar {
    compiler: GrammarCompiler,
    grammar: Arc<CGrammar>,
}

impl GrammarCompiler {
    /// Sorts the tokens into a trie, which takes about two tenths of a second.
    ///
    /// # Errors
    /// [`InferenceError::Grammar`], a bug.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, InferenceError> {
        let environment = guarded(|| Ok::<_, String>(Environment::new(tokenizer)))?;
        Ok(Self {
            environment: Arc::new(environment),
            tokenizer: tokenizer.clone(),
        })
    }

    /// A grammar in `llguidance`'s variant of Lark; its start is `start`.
    ///
    /// # Errors
    /// [`InferenceError::Grammar`] if it is malformed or exceeds a limit, among
    /// them 16 KiB; [`InferenceError::Threads`] if no thread can be started.
    ///
    /// Source of the syntax: `docs/syntax.md` of `llguidance` 1.9.1.
    pub fn lark(&self, grammar: &str) -> Result<Grammar, InferenceError> {
        check_source(grammar)?;
        self.compile(TopLevelGrammar::from_lark(grammar.to_owned()))
    }

    /// The JSON that a JSON schema allows, written without white space.
    ///
    /// # Errors
    /// [`InferenceError::Grammar`] if it is malformed, uses what is not
    /// supported (among it `$ref`), or exceeds a limit, among them 16 KiB;
    /// [`InferenceError::Threads`] if no thread can be started.
    pub fn json_schema(&self, schema: &str) -> Result<Grammar, InferenceError> {
        check_source(schema)?;
        let unusable = |error: serde_json::Error| InferenceError::Grammar(error.to_string());
        let mut schema: serde_json::Value = serde_json::from_str(schema).map_err(unusable)?;
        if let Some(schema) = schema.as_object_mut() {
            let compact = serde_json::json!({
                "whitespace_flexible": false, "item_separator": ",", "key_separator": ":",
            });
            schema.insert("x-guidance".to_owned(), compact);
        }
        self.compile(TopLevelGrammar::from_json_schema(schema))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Grammar, InferenceError> {
        let compile = || {
            let environment = Some(self.shared_environment());
            let mut silent = Logger::new(0, 0);
            let grammar = GrammarInit::Serialized(grammar);
            guarded(|| grammar.to_cgrammar(environment, &mut silent, limits(), Vec::new()))
        };
        let compiled = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("grammar".to_owned())
                .stack_size(COMPILER_STACK_BYTES)
                .spawn_scoped(scope, compile);
            let failed = |error: std::io::Error| InferenceError::Threads {
                threads: 1,
                detail: error.to_string(),
            };
            let finished = thread.map_err(failed)?.join();
            finished.expect("panics are caught on the thread itself")
        })?;
        let grammar = Grammar {
            compiler: self.clone(),
            grammar: compiled,
        };
        // What only shows in the first state is an error of the grammar as well.
        grammar.start()?.next_step()?;
        Ok(grammar)
    }

    fn shared_environment(&self) -> TokEnv {
        let environment: Arc<Environment> = Arc::clone(&self.environment);
        environment
    }
}

impl Grammar {
    /// A new output of this grammar.
    ///
    /// # Errors
    /// [`InferenceError::Grammar`], a bug: the grammar has been tried.
    pub fn start(&self) -> Result<Constraint, InferenceError> {
        let parser = guarded(|| {
            let environment = self.compiler.shared_environment();
            let counters = Arc::new(ParserPerfCounters::default());
            Parser::new(environment, Arc::clone(&self.grammar), limits(), counters)
        })?;
        Ok(Constraint::new(Machine::Grammar(Box::new(
            GrammarMachine {
                compiler: self.compiler.clone(),
                parser,
                has_ended: false,
            },
        ))))
    }
}

/// A step ends after about 15 ms of the lexer and 3 ms of the parser; lexer
/// states take 1 to 2 kB each.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 20_000,
        max_grammar_size: 50_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

fn check_source(source: &str) -> Result<(), InferenceError> {
    if source.len() > MAX_SOURCE_BYTES {
        let limit = format!("longer than {MAX_SOURCE_BYTES} bytes");
        return Err(InferenceError::Grammar(limit));
    }
    let mut depth = 0_usize;
    for letter in source.chars() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            let limit = format!("nested deeper than {MAX_NESTING}");
            return Err(InferenceError::Grammar(limit));
        }
    }
    Ok(())
}

/// Runs the library; what goes wrong there is an error of the grammar.
fn guarded<T, E: std::fmt::Display>(
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, InferenceError> {
    let message = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!(
                "its parser panicked: {}",
                text.unwrap_or("without a message")
            )
        }
    };
    let message = message.chars().take(MAX_MESSAGE_CHARS).collect();
    Err(InferenceError::Grammar(message))
}

/// The normal tokens alone: a grammar cannot name any other.
struct Environment {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl Environment {
    fn new(tokenizer: &Tokenizer) -> Self {
        let vocabulary = tokenizer.vocabulary();
        let normal = (0..).take(vocabulary.n_normal());
        let words: Vec<Vec<u8>> = normal
            .map(|id| vocabulary.bytes(TokenId(id)).to_vec())
            .collect();
        let n_words = u32::try_from(words.len()).expect("ids are u32");
        Self {
            trie: TokTrie::from(&TokRxInfo::new(n_words, INVALID_TOKEN), &words),
            tokenizer: tokenizer.clone(),
        }
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let tokens = self.tokenizer.encode_exactly(bytes);
        tokens.into_iter().map(|token| token.0).collect()
    }
}

impl BiasComputer for Environment {
    fn compute_bias(&self, parser: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut legal = self.trie.alloc_token_set();
        self.trie.add_bias(parser, &mut legal, start);
        legal
    }

    fn trie(&self) -> &TokTrie {
        &self.trie
    }
}

pub(super) struct GrammarMachine {
    compiler: GrammarCompiler,
    parser: Parser,
    has_ended: bool,
}

impl GrammarMachine {
    pub(super) fn next(&mut self) -> Result<Step, InferenceError> {
        if self.has_ended {
            return Ok(Step::Done);
        }
        let forced = guarded(|| self.forced())?;
        if !forced.is_empty() {
            return self.force(forced);
        }
        let (legal, may_end) = guarded(|| self.legal())?;
        match (&*legal, may_end) {
            ([], true) => {
                self.has_ended = true;
                Ok(Step::Done)
            }
            ([], false) => Err(InferenceError::Grammar("nothing is legal here".to_owned())),
            (&[only], false) => self.force(vec![only]),
            _ => {
                let end = self.compiler.tokenizer.end_of_sequence();
                let end = end.filter(|_| may_end);
                // An added token: its id is above all others.
                Ok(Step::Choose(legal.into_iter().chain(end).collect()))
            }
        }
    }

    fn force(&mut self, tokens: Vec<TokenId>) -> Result<Step, InferenceError> {
        tokens.iter().try_for_each(|&token| self.accept(token))?;
        Ok(Step::Forced(tokens))
    }

    /// The tokens of the bytes that alone are legal; not the last ones, if a
    /// token could be chosen that holds them and goes on.
    fn forced(&mut self) -> Result<Vec<TokenId>, String> {
        if self.parser.grammar().lexer_spec().no_forcing {
            return Ok(Vec::new());
        }
        let bytes = self.parser.force_bytes().to_vec();
        let environment = &self.compiler.environment;
        let mut tokens = environment.tokenize_bytes(&bytes);
        let trie = environment.tok_trie();
        let parser = &mut self.parser;
        let (n_chopped, _) = parser.with_recognizer(|state| trie.chop_tokens(state, &tokens));
        tokens.truncate(tokens.len() - n_chopped);
        self.check()?;
        Ok(tokens.into_iter().map(TokenId).collect())
    }

    /// The legal tokens, and whether the output may end here instead.
    fn legal(&mut self) -> Result<(Vec<TokenId>, bool), String> {
        let pending = self.parser.currently_forced_bytes().to_vec();
        let may_end = pending.is_empty() && self.parser.is_accepting();
        if may_end && !self.parser.can_advance() {
            return Ok((Vec::new(), true));
        }
        let mask = self
            .parser
            .compute_bias(&*self.compiler.environment, &pending);
        let n_normal = self.compiler.tokenizer.vocabulary().n_normal();
        let ids = mask.iter().take_while(|&id| (id as usize) < n_normal);
        self.check()?;
        Ok((ids.map(TokenId).collect(), may_end))
    }

    /// `token` is legal.
    pub(super) fn accept(&mut self, token: TokenId) -> Result<(), InferenceError> {
        if self.compiler.tokenizer.is_added(token) {
            self.has_ended = true;
            return Ok(());
        }
        let bytes = self.compiler.tokenizer.token_bytes(token);
        let parser = &mut self.parser;
        let n_taken_back = guarded(|| parser.apply_token(bytes, token.0))?;
        if n_taken_back > 0 {
            let what = "it takes back what was written";
            return Err(InferenceError::Grammar(what.to_owned()));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.parser
            .get_error()
            .map_or(Ok(()), |error| Err(error.message()))
    }
}
