//! The security analyst that lives inside the process: Warden and Guard.
