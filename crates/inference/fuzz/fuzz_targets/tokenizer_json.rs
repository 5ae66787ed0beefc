//! A tokenizer.json.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inwarden_inference::fuzz::tokenizer_json(bytes));
