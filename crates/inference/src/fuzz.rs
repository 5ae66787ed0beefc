//! What `fuzz/` calls: the parsers of everything that comes out of a file.
//!
//! No part of the interface, and there only with the feature `testing`. A bad
//! file must be an error; these functions end in a panic if it is anything else.

use crate::{
    bytes::Cursor,
    config::ModelConfig,
    gguf::{Header, Metadata},
    huggingface, safetensors,
    tokenizer::{TokenId, Tokenizer},
};

/// A GGUF header, and everything that its metadata can be asked for.
pub fn gguf(bytes: &[u8]) {
    // Once as a whole file, once as the start of one that goes on.
    for file_len in [bytes.len() as u64, u64::MAX / 2] {
        let Ok(header) = Header::parse(bytes, file_len) else {
            continue;
        };
        let mut ranges: Vec<_> = header.tensors.iter().map(|t| t.range.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.iter().all(|range| range.end as u64 <= file_len));
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        for tensor in &header.tensors {
            let n_blocks = tensor.range.len() / tensor.block_type.block_bytes();
            let n_elements: usize = tensor.shape.iter().product();
            assert_eq!(n_blocks * tensor.block_type.block_len(), n_elements);
        }
        let metadata = Metadata::new(&header.values, bytes);
        // Errors are right answers here and in all that follows.
        drop(ModelConfig::from_metadata(&metadata, 7, true));
        drop(metadata.texts("tokenizer.ggml.tokens"));
        drop(metadata.integers("tokenizer.ggml.token_type"));
        drop(metadata.optional_unsigned("split.count"));
    }
}

/// A safetensors file, the index over several, and a configuration.
pub fn safetensors(bytes: &[u8]) {
    drop(huggingface::parse_config(bytes));
    drop(huggingface::parse_index(bytes));
    let mut cursor = Cursor::new(bytes);
    let Ok(n_bytes) = cursor.u64("header length") else {
        return;
    };
    let Ok(end) = safetensors::header_end(n_bytes, bytes.len() as u64) else {
        return;
    };
    let (header, data) = bytes[8..].split_at(end - 8);
    let Ok(entries) = safetensors::parse(header, data.len() as u64) else {
        return;
    };
    for (name, entry) in &entries {
        let Ok((block_type, [start, end])) = safetensors::check(name, entry) else {
            continue;
        };
        assert!(start <= end && end <= data.len() as u64);
        assert!((end - start).is_multiple_of(block_type.block_bytes() as u64));
    }
}

/// The tokenizer in the metadata of a GGUF file, then a text through it.
pub fn tokenizer_gguf(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes, bytes.len() as u64) {
        let metadata = Metadata::new(&header.values, bytes);
        if let Ok(tokenizer) = Tokenizer::from_metadata(&metadata) {
            use_tokenizer(&tokenizer, bytes);
        }
    }
}

/// A `tokenizer.json`, then a text through it.
pub fn tokenizer_json(bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json(bytes, Some(TokenId(3))) {
        use_tokenizer(&tokenizer, bytes);
    }
}

fn use_tokenizer(tokenizer: &Tokenizer, bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]);
    for text in [&*text, "the <|im_start|> Ünïcode 42\n\n  "] {
        let tokens = tokenizer.encode_text(text).unwrap_or_default();
        assert!(tokens.iter().all(|&token| !tokenizer.is_added(token)));
        assert!(
            tokens
                .iter()
                .all(|&token| (token.0 as usize) < tokenizer.n_tokens())
        );
        let prompt = tokenizer.encode_prompt(text).unwrap_or_default();
        drop((tokenizer.decode(&tokens), tokenizer.decode(&prompt)));
    }
    drop(tokenizer.decode(&[TokenId(0), TokenId(u32::MAX)]));
}
