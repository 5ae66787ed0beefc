//! The tokenizer in the metadata of a GGUF file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inwarden_inference::fuzz::tokenizer_gguf(bytes));
