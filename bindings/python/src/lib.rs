//! Python bindings of Inwarden.
