//! The header of a safetensors file, its index, its configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inwarden_inference::fuzz::safetensors(bytes));
