//! Hostile headers: each a typed fault, never a panic.

use super::*;
