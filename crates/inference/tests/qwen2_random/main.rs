//! Models with random weights in the real widths and in every format of weights:
//! against the tensor library's own Qwen2, and against themselves, bit for bit.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

mod bitwise;
mod labels;
mod model;
mod oracle;
mod prefix_files;
