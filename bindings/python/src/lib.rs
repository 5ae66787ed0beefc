//! `inwarden._native`: conversion between Python and the engine, nothing else.
//!
//! The typed package around it (`python/inwarden`) is the API. Every call that
//! may take more than a millisecond goes through `call::detached`, which
//! releases the GIL, converts errors and lets Ctrl-C through.

mod answer;
mod call;
mod config;
mod errors;
mod feedback;
mod guard;
mod replay;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEFAULT_MODEL", inwarden::DEFAULT_MODEL)?;
    module.add_class::<answer::Case>()?;
    module.add_class::<feedback::Entry>()?;
    module.add_class::<guard::Guard>()?;
    module.add_class::<replay::Replay>()?;
    Ok(())
}
