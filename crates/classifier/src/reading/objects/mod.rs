//! What commands act on: paths by their security class, hosts, programs by what
//! they are for.

mod hosts;
mod paths;
mod programs;

pub(crate) use hosts::{AddressClass, Host, hosts_in, url_of};
pub(crate) use paths::{PathClass, class_of, is_masquerade, is_temporary, normalised, paths_in};
pub(crate) use programs::{Purpose, handles_files, has_purpose};
