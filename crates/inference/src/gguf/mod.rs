//! GGUF files: our own bounded reader, split files included.
//!
//! The loader of the tensor library panics on hostile files, so none of it is
//! used. Here a bad file is an error that names the field, the byte and the
//! limit, and reading one allocates at most a small constant times its size.
//!
//! Source: `docs/gguf.md` of ggml, versions 2 and 3, little endian.

mod header;
mod weights;

#[cfg(feature = "testing")]
pub(crate) use header::Header;
pub(crate) use header::Metadata;
pub(crate) use weights::Weights;
