//! Qwen2.5 and MiniLM in process: weights, tokenizer, prefix cache, label scoring, embeddings.
